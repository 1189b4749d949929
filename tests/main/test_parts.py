"""What the parts of a program are told of its settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.config import AUTO, FORK, PLAIN
from squall.main.config import read_config
from squall.main.parts import _agent_config


@pytest.mark.parametrize(
    ("memory_mib", "start_path", "told"), [("0", AUTO, PLAIN), ("0", FORK, PLAIN), ("1", AUTO, AUTO), ("", FORK, FORK)]
)
def test_a_node_whose_templates_may_have_no_memory_makes_none(
    tmp_path: Path, memory_mib: str, start_path: str, told: str
) -> None:
    environ = {"SQUALL_TEMPLATE_MEMORY_MIB": memory_mib, "SQUALL_START_PATH": start_path}

    config = _agent_config(read_config(environ, str(tmp_path)), ())

    assert config.start_path == told
