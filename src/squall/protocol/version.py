"""The version of the package and of the wire; the one place both are born."""

from __future__ import annotations

VERSION = "0.1.0"

PROTOCOL_VERSION = 1
"""Counts incompatible changes of the wire. Peers refuse each other when it differs by more than one."""
