"""The TCP port of a server: where it listens, and what it refuses.

Beyond loopback nothing is served without TLS unless that was asked for by name: tokens would travel in the clear. The
API's own token is asked for wherever the server listens.
"""

from __future__ import annotations

import ipaddress
import logging
import resource
import socket
from pathlib import Path

from squall.main.config import DEFAULT_HTTP_PORT, Config, ConfigError

BACKLOG = 512
FILES_MAX = 65_536
"""As many as the system lets it have, up to this: programs that we start may close them all one by one."""

_log = logging.getLogger("squall.main.tcp")


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


def allow_files() -> None:
    """Let this process have many files open: each connection is one, and systems begin with some hundred."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposure(config: Config) -> None:
    """Refuse to be reachable from elsewhere without TLS, unless that is asked for, and TLS that cannot be had.

    Raises:
        ConfigError: with what to do.
    """
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError("set both SQUALL_TLS_CERT and SQUALL_TLS_KEY, or neither")
    if config.tls_cert and config.tls_key:
        _check_tls(config.tls_cert, config.tls_key)
    elif not is_loopback(config.http_host):
        if not config.http_insecure:
            raise ConfigError(
                f"cannot listen at {config.http_host} without TLS: tokens would travel in the clear; set"
                " SQUALL_TLS_CERT and SQUALL_TLS_KEY to the paths of a certificate and its key, or listen at 127.0.0.1,"
                " or set SQUALL_HTTP_INSECURE=1 where nobody else reads the network"
            )
        _log.warning("listening at %s without TLS: tokens travel in the clear", config.http_host)


def _check_tls(cert: str, key: str) -> None:
    """The port is served from the first connection on: whoever starts the server is to hear of it, not who connects."""
    import ssl  # cold start: most servers have none

    for variable, path in (("SQUALL_TLS_CERT", cert), ("SQUALL_TLS_KEY", key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{variable}={path!r}: {error.strerror}") from None
    try:
        # An empty password: without one, that of an encrypted key would be asked for at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        message = f"no certificate chain with its key, not encrypted, in PEM ({reason})"
        raise ConfigError(f"SQUALL_TLS_CERT={cert!r} and SQUALL_TLS_KEY={key!r}: {message}") from None


def url_of(listener: socket.socket, host: str, tls_cert: str | None) -> str:
    """What clients put into their browser."""
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if tls_cert else 'http'}://{name}:{listener.getsockname()[1]}"
