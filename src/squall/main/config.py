"""The configuration of every program, read once from the environment into one record."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from squall.agent.config import AUTO, START_PATHS
from squall.agent.image.bases.python_image import DEFAULT_PYTHON_IMAGE, checked_pattern
from squall.agent.image.builder import PACKAGE_BYTES_MAX, STEP_BYTES_MAX, STEP_TIMEOUT_S
from squall.main.secret_keys import decoded

DEFAULT_DATA_DIR = "/var/lib/squall"
DEFAULT_HTTP_PORT = 7855


class ConfigError(ValueError):
    """A variable has no possible value; the message names it and says what it may be."""


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set. Each field is read from the variable of its name, SQUALL_ in front."""

    data_dir: Path = Path(DEFAULT_DATA_DIR)
    """Where everything is kept; its path must be short, because sockets are in it."""
    http_host: str = "127.0.0.1"
    """Address to listen at. Beyond loopback only with TLS, or `http_insecure`."""
    http_port: int | None = None
    """None: 7855, or any free port when that is taken. 0: any free port. Else this one or none."""
    http_names: tuple[str, ...] = ()
    """Names clients call this server by, besides those of loopback; commas between them."""
    web_domain: str = "localhost"
    """What comes behind the labels of web functions in their addresses: a domain all of whose names lead here. With a
    scheme, as https://example.com, where something stands before this server that answers there."""
    tls_cert: str | None = None
    """Path of a certificate chain (PEM). None: plain HTTP, on loopback only unless `http_insecure`."""
    tls_key: str | None = None
    """Path of the certificate's key."""
    http_insecure: bool = False
    """Listen beyond loopback without TLS: for networks that nobody reads, as that to a proxy which ends TLS itself."""
    tunnel_ports: range = range(31_000, 32_000)
    """Ports of this server for tunnels, at the address of `http_host`; written 31000-31999. Empty (written none): there
    are no tunnels."""
    tunnel_plain: bool = False
    """Beyond loopback: tunnels may be asked for that are without TLS. Written 1."""
    idle_exit_s: float | None = 900.0
    """A server with nothing running, deployed or connected ends after so many seconds. None (written 0): never."""
    database_url: str | None = None
    """As SQLAlchemy has it, for PostgreSQL. None: SQLite in the data directory."""
    blob_url: str | None = None
    """A bucket as obstore has it: s3://..., gs://..., az://... None: a folder in the data directory."""
    layer_url: str | None = None
    """Where nodes put the layers of images they build and find those of others, as obstore has it: s3://bucket/prefix,
    file:///folder. None: below `layers` in the bucket of `blob_url`, else nowhere. Empty (written none): nowhere.
    """
    blob_bytes_max: int = 50 * 2**30
    """Blobs that nothing names any more are deleted, oldest first, to stay below."""
    log_bytes_max: int = 1 * 2**30
    """Log lines of all apps together; the oldest go."""
    failed_input_bytes_max: int = 256 * 2**20
    """Arguments of inputs that failed, kept for `squall call replay` as long as results; the oldest go. 0: none."""
    network_slots: int = 8
    """Network slots kept ready for containers."""
    image_builds: int = 2
    """Images that are built at a time."""
    step_timeout_s: float | None = STEP_TIMEOUT_S
    """A step of an image that has no `timeout=` of its own is ended after so many seconds, whatever it does: it runs,
    fetches or copies. None (written 0): never."""
    step_bytes_max: int = STEP_BYTES_MAX
    """What one step of an image may have on the disk while it runs; it is ended beyond."""
    package_bytes_max: int = PACKAGE_BYTES_MAX
    """The Python packages that builds share; those wanted longest ago go. 0: they share none."""
    python_image: str = DEFAULT_PYTHON_IMAGE
    """The image of a registry that `debian_slim` takes, {series} standing for 3.11 or another, {suite} for Debian's.
    Empty (written none): no registry is asked, every base is made of Debian's packages."""
    cpu_milli: int | None = None
    """What containers may use in all. None: every processor of the machine."""
    memory_mib: int | None = None
    """The same of memory. None: all of the machine's."""
    start_path: str = AUTO
    """How containers are started: auto, by the shortest path there is; plain, without templates; or fork, parked or
    restore, for tests, where each start waits until it can be just that."""
    template_memory_mib: int | None = None
    """Memory for templates, and for what is made ahead of starts. None: a quarter of `memory_mib`. 0: no templates."""
    template_disk_mib: int = 4_096
    """Disk for templates of functions that are saved, where CRIU is installed (`make criu`): they outlive a restart of
    the machine. 0: none is saved."""
    secret_key: tuple[bytes, ...] = field(default=(), repr=False)
    """What secrets are encrypted with in the database: base64 of 32 bytes, or several with commas between them. The
    first one encrypts, the others only decrypt. None: a key in the data directory, made when it is first needed."""
    server_url: str | None = None
    """For an agent elsewhere: its server, as https://name:port. None for everything else."""
    token: str | None = None
    """What opens the server. None: the one in its data directory, made at the first start."""

    @property
    def socket_path(self) -> Path:
        """Where clients of this machine connect."""
        return self.data_dir / "server.sock"

    @property
    def layers_at(self) -> str:
        """The URL of the store of layers; empty for none."""
        if self.layer_url is not None or not self.blob_url:
            return self.layer_url or ""
        # On this machine's disk they would only be twice; a bucket is there for all nodes.
        place, mark, query = self.blob_url.partition("?")
        return f"{place.rstrip('/')}/layers{mark}{query}"


def read_config(environ: Mapping[str, str], data_dir: str | None = None) -> Config:
    """The configuration in these variables; `data_dir` is what the command line says.

    Raises:
        ConfigError: a variable has no possible value.
    """
    values: dict[str, object] = {}
    for name, read in _READERS.items():
        text = environ.get("SQUALL_" + name.upper(), "").strip()
        if text:
            try:
                values[name] = read(text)
            except ValueError as error:
                value = "" if name in _HIDDEN else f"={text!r}"
                raise ConfigError(f"SQUALL_{name.upper()}{value}: {error}") from None
    if data_dir:
        values["data_dir"] = Path(data_dir)
    config = Config(**values)  # type: ignore[arg-type]  # the readers are of the fields' types
    path = config.data_dir.absolute()
    if len(str(path)) > 80:
        raise ConfigError(f"the data directory's path {str(path)!r} is too long for the sockets in it; 80 characters")
    return Config(**{**values, "data_dir": path})  # type: ignore[arg-type]


def told_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What is set in these variables, as it is written there, for whoever asks how the server runs; without what may
    be a password."""
    found = {f"SQUALL_{name.upper()}": environ.get(f"SQUALL_{name.upper()}", "").strip() for name in _READERS}
    hidden = {f"SQUALL_{name.upper()}" for name in _HIDDEN}
    return {name: _without_password(text) for name, text in found.items() if text and name not in hidden}


def _without_password(text: str) -> str:
    if "://" not in text:
        return text
    parts = urlsplit(text)
    is_whole = not ("@" in parts.netloc or parts.query)
    return text if is_whole else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path} (and more)"


def _bytes(text: str) -> int:
    units = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
    number, factor = (text[:-1], units[text[-1].lower()]) if text[-1].lower() in units else (text, 1)
    return _count(number) * factor


def _count(text: str) -> int:
    if not text.isdigit():
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise ValueError("must be 1 or 0")
    return values[text.lower()]


def _port(text: str) -> int:
    number = _count(text)
    if number > 65_535:
        raise ValueError("must be a port: 0 to 65535")
    return number


def _ports(text: str) -> range:
    if text == "none":
        return range(0)
    first, mark, last = text.partition("-")
    ports = range(_port(first), _port(last if mark else first) + 1)
    if not ports or not ports[0]:
        raise ValueError("must be ports such as 31000-31999, the lower one first, or none")
    return ports


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("must be a number of seconds; 0 means never") from None
    if not 0 <= seconds < 1e9:
        raise ValueError("must be a number of seconds; 0 means never")
    return seconds or None


def _start_path(text: str) -> str:
    if text not in START_PATHS:
        raise ValueError(f"must be one of {', '.join(START_PATHS)}")
    return text


def _keys(text: str) -> tuple[bytes, ...]:
    keys = [decoded(one.strip()) for one in text.split(",")]
    if any(key is None for key in keys):
        raise ValueError("must be base64 of 32 bytes, as `openssl rand -base64 32` makes it; commas between several")
    return tuple(key for key in keys if key is not None)


def _domain(text: str) -> str:
    scheme, mark, host = text.rpartition("://")
    name, colon, port = host.rstrip("/").partition(":")
    is_name = re.match(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\Z", name) is not None
    if not is_name or (mark and scheme not in ("http", "https")) or (colon and not port.isdigit()):
        raise ValueError("must be a domain such as example.com, or https://example.com behind another server")
    return text.rstrip("/").lower()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _url_or_none(text: str) -> str:
    if text == "none":
        return ""
    if "://" not in text:
        raise ValueError("must be a URL such as s3://bucket/prefix or file:///folder, or none")
    return text


_HIDDEN = frozenset(["token", "secret_key"])
"""They are told to nobody."""
_READERS: dict[str, Callable[[str], object]] = {
    "data_dir": Path,
    "http_host": str,
    "http_port": _port,
    "http_names": _names,
    "web_domain": _domain,
    "tls_cert": str,
    "tls_key": str,
    "http_insecure": _flag,
    "tunnel_ports": _ports,
    "tunnel_plain": _flag,
    "idle_exit_s": _seconds,
    "database_url": str,
    "blob_url": str,
    "layer_url": _url_or_none,
    "blob_bytes_max": _bytes,
    "log_bytes_max": _bytes,
    "failed_input_bytes_max": _bytes,
    "network_slots": _count,
    "image_builds": _count,
    "step_timeout_s": _seconds,
    "step_bytes_max": _bytes,
    "package_bytes_max": _bytes,
    "python_image": checked_pattern,
    "cpu_milli": _count,
    "memory_mib": _count,
    "start_path": _start_path,
    "template_memory_mib": _count,
    "template_disk_mib": _count,
    "secret_key": _keys,
    "server_url": str,
    "token": str,
}
