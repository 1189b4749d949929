"""The TCP port of a server: where it listens, and what it refuses.

Beyond loopback nothing is served without TLS: the token would travel in the clear.
"""

from __future__ import annotations

import ipaddress
import socket

from squall.main.config import DEFAULT_HTTP_PORT, ConfigError

BACKLOG = 512


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket, at the usual port or any free one when `port` is None.

    Raises:
        ConfigError: the port cannot be had.
    """
    candidates = (DEFAULT_HTTP_PORT, 0) if port is None else (port,)
    reason: OSError | None = None
    for candidate in candidates:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            reason = error
        else:
            listener.setblocking(False)
            return listener
    raise ConfigError(f"cannot listen at {host}:{candidates[-1]}: {reason}; set SQUALL_HTTP_HOST or SQUALL_HTTP_PORT")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(host: str, tls_cert: str | None, tls_key: str | None) -> None:
    """Refuse to be reachable from elsewhere without TLS.

    Raises:
        ConfigError: with what to do.
    """
    if bool(tls_cert) != bool(tls_key):
        raise ConfigError("set both SQUALL_TLS_CERT and SQUALL_TLS_KEY, or neither")
    if not is_loopback(host) and not tls_cert:
        raise ConfigError(
            f"cannot listen at {host} without TLS: the token would travel in the clear; set SQUALL_TLS_CERT and"
            " SQUALL_TLS_KEY to the paths of a certificate and its key, or listen at 127.0.0.1"
        )


def url_of(listener: socket.socket, host: str, tls_cert: str | None) -> str:
    """What clients put into their browser."""
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls_cert else 'http'}://{name}:{listener.getsockname()[1]}"
