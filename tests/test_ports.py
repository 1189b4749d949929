"""A held port is its program's alone."""

from __future__ import annotations

import socket

import pytest

from tests.ports import hold_port, port_of


def test_program_listens_at_a_held_port_again_and_again() -> None:
    with hold_port() as held:
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port_of(held))):
                socket.create_connection(("127.0.0.1", port_of(held))).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port_of(held)))


def test_held_port_is_given_to_nobody_else() -> None:
    with hold_port() as held, socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port_of(held)))
