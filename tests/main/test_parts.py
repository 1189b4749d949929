"""What the parts of a program are told of its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.config import AUTO, FORK, PLAIN
from squall.main.config import read_config
from squall.main.parts import _agent_config, tunnel_entries


@pytest.mark.parametrize(
    ("memory_mib", "start_path", "told"), [("0", AUTO, PLAIN), ("0", FORK, PLAIN), ("1", AUTO, AUTO), ("", FORK, FORK)]
)
def test_a_node_whose_templates_may_have_no_memory_makes_none(
    tmp_path: Path, memory_mib: str, start_path: str, told: str
) -> None:
    environ = {"SQUALL_TEMPLATE_MEMORY_MIB": memory_mib, "SQUALL_START_PATH": start_path}

    config = _agent_config(read_config(environ, str(tmp_path)), ())

    assert config.start_path == told


CERTIFICATE = {"SQUALL_TLS_CERT": "/cert.pem", "SQUALL_TLS_KEY": "/key.pem"}


@pytest.mark.parametrize(
    ("environ", "has_tls", "may_be_plain"),
    [
        ({}, False, True),
        ({"SQUALL_HTTP_HOST": "0.0.0.0", "SQUALL_HTTP_INSECURE": "1"}, False, True),
        (CERTIFICATE, True, True),
        ({**CERTIFICATE, "SQUALL_HTTP_HOST": "0.0.0.0"}, True, False),
        ({**CERTIFICATE, "SQUALL_HTTP_HOST": "0.0.0.0", "SQUALL_TUNNEL_PLAIN": "1"}, True, True),
    ],
)
def test_tunnels_are_as_open_as_the_server(
    tmp_path: Path, environ: dict[str, str], has_tls: bool, may_be_plain: bool
) -> None:
    entries = tunnel_entries(read_config(environ, str(tmp_path)))

    assert entries is not None
    assert (entries.has_tls, not entries.why_no_plain) == (has_tls, may_be_plain)


def test_server_without_ports_for_them_has_no_tunnels(tmp_path: Path) -> None:
    assert tunnel_entries(read_config({"SQUALL_TUNNEL_PORTS": "none"}, str(tmp_path))) is None
