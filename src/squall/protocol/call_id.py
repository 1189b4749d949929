"""Whose a call is, by its id: a client ends the ids of its calls in a mark that only it can claim.

A server that was started anew knows no calls, and containers bring outputs of them by id. The id alone, which every
container sees that runs an input of the call, must not be enough to get them.
"""

from __future__ import annotations

from squall.protocol.hashing import sha256_hex

_UNMARKED_CHARS = 25
_MARK_BYTES = 8


def owner_mark(client_id: str) -> str:
    """The end of the ids of a client's calls. It does not tell the id of the client, which only the server hears."""
    return sha256_hex(client_id.encode())[: 2 * _MARK_BYTES]


def may_open(call_id: str, mark: str) -> bool:
    """Whether a client of that mark may open the call; calls without one (of older clients) are open to who asks."""
    return not is_marked(call_id) or call_id[_UNMARKED_CHARS:] == mark


def is_marked(call_id: str) -> bool:
    """Whether the call is one client's alone."""
    return len(call_id) > _UNMARKED_CHARS
