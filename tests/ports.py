"""Ports of this machine that are a test's own, for programs that are told where to listen."""

from __future__ import annotations

import socket


def hold_port() -> socket.socket:
    """A socket that keeps a port of loopback for a program that is to listen there; close it when that has ended.

    One that is bound and does not listen: a program that sets SO_REUSEADDR, as servers do, can listen there, again and
    again, and nobody else is given the port by chance, as happens to one that was only found free.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def port_of(held: socket.socket) -> int:
    """Its number."""
    return int(held.getsockname()[1])
