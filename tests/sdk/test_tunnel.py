"""Tunnels as programs see them; the server is a real one where it has to be."""

from __future__ import annotations

import pytest

import squall
from squall.exception import InvalidError


def made(*, is_tls: bool, port: int = 31_000, host: str = "example.com", unencrypted: str = "") -> squall.Tunnel:
    return squall.Tunnel(host, port, unencrypted, 31_001 if unencrypted else 0, _is_tls=is_tls)


def test_addresses_say_whether_tls_is_spoken_there() -> None:
    assert made(is_tls=True).url == "https://example.com:31000"
    assert made(is_tls=True, port=443).url == "https://example.com"
    assert made(is_tls=False).url == "http://example.com:31000"
    assert made(is_tls=False, host="::1").url == "http://[::1]:31000"
    assert made(is_tls=True).tls_socket == ("example.com", 31_000)
    with pytest.raises(InvalidError, match=r"without TLS: the server has no certificate .SQUALL_TLS_CERT.; use \.url"):
        _ = made(is_tls=False).tls_socket


def test_an_unencrypted_address_has_to_be_asked_for() -> None:
    assert made(is_tls=True, unencrypted="example.com").tcp_socket == ("example.com", 31_001)
    with pytest.raises(InvalidError, match=r"no unencrypted address; say forward\(port, unencrypted=True\)"):
        _ = made(is_tls=True).tcp_socket


def test_a_tunnel_is_a_value() -> None:
    one = squall.Tunnel("a", 1, "", 0)

    assert one == squall.Tunnel("a", 1, "", 0)
    assert repr(one) == "Tunnel(host='a', port=1, unencrypted_host='', unencrypted_port=0)"
    with pytest.raises(AttributeError):
        one.port = 2  # type: ignore[misc]


def test_outside_of_containers_there_are_none() -> None:
    with pytest.raises(InvalidError, match="outside a container"), squall.forward(8000):
        pass


async def test_nor_in_an_event_loop() -> None:
    with pytest.raises(InvalidError, match="outside a container"):
        async with squall.forward.aio(8000):
            pass
