"""Headers on their way through: what belongs to one connection stays there, what tells of the client is added."""

from __future__ import annotations

from starlette.types import Scope

Pairs = list[tuple[bytes, bytes]]

HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Of one connection (RFC 9110, 7.6.1)."""
TOKENS = ((b"modal-key", b"modal-secret"), (b"squall-key", b"squall-secret"))
"""By which headers a proxy token comes: its id, and its secret."""
OURS = frozenset(name for pair in TOKENS for name in pair)
"""What opens a web function is not for its code."""
_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"})
_WEBSOCKET = frozenset({b"connection", b"upgrade"})


def host_of(scope: Scope) -> str | None:
    """The name in the request's `Host`, without its port, in lower case; None unless there is just one."""
    found = [value for name, value in scope["headers"] if name == b"host"]
    if len(found) != 1:
        return None
    host: str = found[0].decode("latin-1").strip().lower()
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host


def token_of(scope: Scope) -> tuple[str, str] | None:
    """The id and the secret of the proxy token that a request carries; None unless there is just one of each, by one
    pair of names: what stands before this server may take another one for the one that counts."""
    found = sorted((name, value) for name, value in scope["headers"] if name in OURS)
    if tuple(name for name, _ in found) not in TOKENS:
        return None
    (_, key), (_, secret) = found
    return key.decode("latin-1"), secret.decode("latin-1")


def of_request(scope: Scope, root_path: str) -> tuple[str, ...]:
    """The headers of a request as the application is to see them: names and values in turns."""
    listed: set[bytes] = set()
    forwarded: list[str] = []
    host = proto = ""
    flat: list[str] = []
    for name, value in scope["headers"]:
        if name == b"connection":
            listed.update(token.strip().lower() for token in value.split(b","))
    client = scope.get("client")
    is_socket = scope["type"] == "websocket"
    for name, value in scope["headers"]:
        if name in _FORWARDED:
            if name == b"x-forwarded-for":
                forwarded.append(value.decode("latin-1"))
            elif name == b"x-forwarded-proto" and client and client[0] in ("127.0.0.1", "::1"):
                proto = value.decode("latin-1")  # of a proxy on this machine, which ends TLS before us
            continue
        if name in OURS or ((name in HOP or name in listed) and not (is_socket and name in _WEBSOCKET)):
            continue
        text = value.decode("latin-1")
        if name == b"host":
            host = text
        flat.append(name.decode("latin-1"))
        flat.append(text)
    if client:
        forwarded.append(client[0])
    if forwarded:
        flat += ("x-forwarded-for", ", ".join(forwarded))
    flat += ("x-forwarded-proto", proto or _plain(scope["scheme"]), "x-forwarded-host", host)
    if root_path:
        flat += ("x-forwarded-prefix", root_path)
    return tuple(flat)


def _plain(scheme: str) -> str:
    return {"ws": "http", "wss": "https"}.get(scheme, scheme)


def of_response(flat: tuple[str, ...]) -> Pairs:
    """The headers of a response as the client is to see them."""
    return [
        (name, flat[place + 1].encode("latin-1"))
        for place in range(0, len(flat) - 1, 2)
        if (name := flat[place].encode("latin-1")) not in HOP
    ]


def has_body(scope: Scope) -> bool:
    """Whether a request comes with a body."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
            return True
    return False
