"""What image builds inherit from this machine: package sources, certificates, proxies, indexes of Python packages.

Read once, into plain records. None of it may end up in a layer.
"""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_APT_OPTIONS = re.compile(
    r"^Acquire::(http|https|ftp|Retries|ForceIPv|Check-|AllowInsecure|AllowWeak|Max-)", re.IGNORECASE
)
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_REGISTRY_VARIABLES = (
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "CONTAINERS_REGISTRIES_CONF",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "AWS_ENDPOINT_URL_ECR",
)
_CA_DEFAULT = "/etc/ssl/certs/ca-certificates.crt"
_PIP_KEYS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "constraint",
    "trusted-host",
    "cert",
    "no-index",
    "proxy",
    "timeout",
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """One suite of one mirror with its components."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()
    """As in square brackets of a sources.list line: signed-by, trusted, arch."""
    inline_key: str = ""
    """The key itself, when the source carries it instead of naming a file."""

    def line(self, key_path: str = "") -> str:
        """As a line of sources.list; `key_path` replaces where the keys are."""
        options = [(name, value) for name, value in self.options if not (key_path and name == "signed-by")]
        if key_path:
            options.append(("signed-by", key_path))
        bracket = "[" + " ".join(f"{name}={value}" for name, value in options) + "] " if options else ""
        return f"deb {bracket}{self.uri} {self.suite} {' '.join(self.components)}".rstrip()


@dataclass(frozen=True, slots=True)
class AptSettings:
    """This machine's apt as far as a build needs it."""

    sources: tuple[AptSource, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    """Of apt.conf: proxies, certificates, time limits."""
    credentials: str = ""
    """Lines of auth.conf."""


@dataclass(frozen=True, slots=True)
class PipSettings:
    """This machine's pip configuration and PIP_ variables, the latter winning."""

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By pip's long option name; lists are split at white space."""

    def get(self, name: str) -> tuple[str, ...]:
        """Values of an option, none when it is not set."""
        return self.values.get(name, ())

    def first(self, name: str) -> str:
        """The single value of an option, or an empty text."""
        return (self.get(name) or ("",))[0]


@dataclass(frozen=True, slots=True)
class MachineSettings:
    """Everything a build inherits."""

    distribution: str = ""
    """`debian` or `ubuntu`; empty when this is neither."""
    codename: str = ""
    apt: AptSettings = AptSettings()
    pip: PipSettings = PipSettings()
    ca_bundle: str = ""
    """Path of a file of certificates; empty when the machine has none."""
    proxies: Mapping[str, str] = field(default_factory=dict)
    registry_env: Mapping[str, str] = field(default_factory=dict)
    """Variables that lead skopeo to this machine's settings for registries."""
    python_mirror: str = ""
    """Where Pythons that need nothing of an image are fetched from; empty for where uv does."""
    python_image: str = ""
    """What names the image for a Python, {series} and {suite} standing for them; empty: no registry is asked. Not
    the machine's but the operator's word: whoever reads the configuration fills it in."""


def read_machine_settings(environ: Mapping[str, str], root: str = "/") -> MachineSettings:
    """Read the settings of the machine below `root` as seen by a process with these variables."""
    release = _os_release(Path(root, "etc/os-release"))
    return MachineSettings(
        distribution=release.get("ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        apt=_apt_settings(Path(root)),
        pip=_pip_settings(environ, Path(root)),
        ca_bundle=_ca_bundle(environ, Path(root)),
        proxies=_proxies(environ),
        python_mirror=environ.get("UV_PYTHON_INSTALL_MIRROR", ""),
        registry_env={name: environ[name] for name in _REGISTRY_VARIABLES if environ.get(name)},
    )


def _os_release(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name: value.strip().strip("\"'") for name, _, value in pairs}


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: environ.get(name) or environ.get(name.upper()) or "" for name in _PROXY_VARIABLES}
    return {name: value for name, value in found.items() if value}


def _ca_bundle(environ: Mapping[str, str], root: Path) -> str:
    for path in [environ.get(name, "") for name in _CA_VARIABLES] + [str(root / _CA_DEFAULT.lstrip("/"))]:
        if path and os.path.isfile(path):
            return path
    return ""


def _apt_settings(root: Path) -> AptSettings:
    directory = root / "etc/apt"
    sources: list[AptSource] = []
    for path in [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            sources.extend(_one_line_sources(path.read_text()))
        elif path.suffix == ".sources" and path.is_file():
            sources.extend(_deb822_sources(path.read_text()))
    credentials = [directory / "auth.conf", *sorted((directory / "auth.conf.d").glob("*.conf"))]
    return AptSettings(
        sources=tuple(sources),
        options=tuple(_apt_options(root)),
        credentials="\n".join(path.read_text() for path in credentials if path.is_file()),
    )


_ONE_LINE = re.compile(
    r"^\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>[^#]*)"
)


def _one_line_sources(text: str) -> Iterator[AptSource]:
    for line in text.splitlines():
        match = _ONE_LINE.match(line)
        if match:
            pairs = [option.partition("=") for option in (match["options"] or "").split()]
            options = tuple((name.lower(), value) for name, _, value in pairs)
            yield AptSource(match["uri"], match["suite"], tuple(match["components"].split()), options)


def _deb822_sources(text: str) -> Iterator[AptSource]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = fields.get(name, "") + "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            yield from _stanza_sources(fields)


def _stanza_sources(fields: Mapping[str, str]) -> Iterator[AptSource]:
    signed_by = fields.get("signed-by", "")
    inline_key = ""
    options: list[tuple[str, str]] = []
    if "BEGIN PGP" in signed_by:
        # Deb822 writes an empty line of the key as a single dot.
        inline_key = "\n".join("" if line == "." else line for line in signed_by.strip().splitlines()) + "\n"
    elif signed_by:
        options.append(("signed-by", ",".join(signed_by.split())))
    if fields.get("trusted"):
        options.append(("trusted", fields["trusted"]))
    if fields.get("architectures"):
        options.append(("arch", ",".join(fields["architectures"].split())))
    for uri in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield AptSource(uri, suite, tuple(fields.get("components", "").split()), tuple(options), inline_key)


def _apt_options(root: Path) -> Iterator[tuple[str, str]]:
    """Options that decide how packages are fetched, as apt itself has put them together from its many files."""
    try:
        dump = subprocess.run(
            ["apt-config", "-o", f"RootDir={root}", "dump", "--no-empty", "--format", "%F\t%v%n"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return
    for line in dump.splitlines():
        name, _, value = line.partition("\t")
        if _APT_OPTIONS.match(name) and value:
            yield name, value


def _pip_settings(environ: Mapping[str, str], root: Path) -> PipSettings:
    values: dict[str, tuple[str, ...]] = {}
    for path in _pip_files(environ, root):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text())
        except (OSError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values.update(_pip_values({name: parser.get(section, name) for name in parser.options(section)}))
    values.update(_pip_values({name[4:]: value for name, value in environ.items() if name.startswith("PIP_")}))
    values.update(_pip_values({"timeout": environ["PIP_DEFAULT_TIMEOUT"]} if "PIP_DEFAULT_TIMEOUT" in environ else {}))
    return PipSettings(values)


def _pip_files(environ: Mapping[str, str], root: Path) -> Sequence[Path]:
    """The files pip reads, least important first."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return ()
    home = environ.get("HOME", "")
    configuration = environ.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    paths = [root / "etc/xdg/pip/pip.conf", root / "etc/pip.conf"]
    paths += [Path(home, ".pip/pip.conf")] if home else []
    paths += [Path(configuration, "pip/pip.conf")] if configuration else []
    paths += [Path(named)] if named else []
    return paths


def _pip_values(raw: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    named = {name.lower().replace("_", "-"): tuple(value.split()) for name, value in raw.items()}
    return {name: value for name, value in named.items() if name in _PIP_KEYS}
