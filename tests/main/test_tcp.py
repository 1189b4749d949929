"""Where the server listens, and where it refuses to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from squall.main import tcp
from squall.main.config import Config, ConfigError
from tests.certificates import make_certificate, openssl


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    tcp.check_exposure(Config(http_host=host))


BEYOND = ["0.0.0.0", "::", "192.0.2.7", "squall.example", "::ffff:127.0.0.1", "127.1", "localhost."]


@pytest.mark.parametrize("host", BEYOND)
def test_beyond_loopback_needs_tls(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SQUALL_TLS_CERT"):
        tcp.check_exposure(Config(http_host=host))

    cert, key = make_certificate(tmp_path)
    tcp.check_exposure(Config(http_host=host, tls_cert=cert, tls_key=key))


@pytest.mark.parametrize("host", BEYOND)
def test_beyond_loopback_without_tls_is_for_who_says_so(host: str, caplog: pytest.LogCaptureFixture) -> None:
    tcp.check_exposure(Config(http_host=host, http_insecure=True))

    assert "tokens travel in the clear" in caplog.text


def test_half_of_tls_is_refused() -> None:
    for half in (Config(tls_cert="cert.pem"), Config(tls_key="key.pem"), Config(tls_key="k", http_insecure=True)):
        with pytest.raises(ConfigError, match="both"):
            tcp.check_exposure(half)


def test_tls_that_cannot_be_had_is_told_at_the_start(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = make_certificate(tmp_path / "other")
    locked = str(tmp_path / "locked.pem")
    openssl(tmp_path, "ec", "-in", key, "-out", locked, "-aes256", "-passout", "pass:secret")
    empty = tmp_path / "empty.pem"
    empty.write_text("")

    for wrong_cert, wrong_key, said in (
        (cert, str(tmp_path / "none.pem"), "SQUALL_TLS_KEY='.*': No such file"),
        (str(tmp_path / "none.pem"), key, "SQUALL_TLS_CERT='.*': No such file"),
        (str(tmp_path), key, "Is a directory"),
        (cert, other_key, "KEY_VALUES_MISMATCH"),
        (cert, locked, "not encrypted"),
        (str(empty), key, "no certificate chain"),
        (key, cert, "no certificate chain"),
    ):
        with pytest.raises(ConfigError, match=said) as refused:
            tcp.check_exposure(Config(tls_cert=wrong_cert, tls_key=wrong_key))
        assert "secret" not in str(refused.value)


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
