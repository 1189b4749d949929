"""Where the server listens, and where it refuses to."""

from __future__ import annotations

import socket

import pytest

from squall.main import tcp
from squall.main.config import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    tcp.check_exposure(host, None, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "squall.example"])
def test_beyond_loopback_needs_tls(host: str) -> None:
    with pytest.raises(ConfigError, match="SQUALL_TLS_CERT"):
        tcp.check_exposure(host, None, None)

    tcp.check_exposure(host, "cert.pem", "key.pem")


def test_half_of_tls_is_refused() -> None:
    with pytest.raises(ConfigError, match="both"):
        tcp.check_exposure("127.0.0.1", "cert.pem", None)


def test_usual_port_falls_back_to_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(tcp, "DEFAULT_HTTP_PORT", taken.getsockname()[1])

        with tcp.bind("127.0.0.1", None) as listener:
            assert listener.getsockname()[1] not in (0, taken.getsockname()[1])


def test_port_that_was_asked_for_does_not_fall_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigError, match="SQUALL_HTTP_PORT"):
            tcp.bind("127.0.0.1", taken.getsockname()[1])


def test_url_says_where_the_listener_is_and_whether_by_tls() -> None:
    with tcp.bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]

        assert tcp.url_of(listener, "127.0.0.1", None) == f"http://127.0.0.1:{port}"
        assert tcp.url_of(listener, "::1", "cert.pem") == f"https://[::1]:{port}"
