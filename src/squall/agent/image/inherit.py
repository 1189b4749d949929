"""Hands this machine's settings to a build container without leaving them in the image.

Everything is in one directory, mounted at `BUILD_DIR` for the time of a step and named by environment variables.
Folders that package indexes live in are mounted at their own paths, because indexes name their files by path.
`mount_points` says which places a step's layer has to be freed of afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from squall.agent.image.machine.settings import AptSource, MachineSettings
from squall.runtime.spec import Bind

BUILD_DIR = "/.squall-build"
UV = f"{BUILD_DIR}/uv"
CACHE_DIR = "/.squall-cache"
"""Where uv has its cache; `packages` says what is there."""
_FILE_OPTIONS = ("cainfo", "sslcert", "sslkey", "issuercert", "crlfile")
_NEVER_MOUNTED = {
    "/",
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
}


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a build container gets on top of what its step says."""

    env: Mapping[str, str]
    binds: tuple[Bind, ...]

    @property
    def mount_points(self) -> tuple[str, ...]:
        """Paths that exist in the container for the mounts' sake, outermost first."""
        outer = (bind.target for bind in self.binds if not bind.target.startswith(BUILD_DIR + "/"))
        return tuple(sorted(set(outer)))


def inherit(
    settings: MachineSettings, sources: Iterable[AptSource], directory: Path, *, uv_path: str, apt_dir: str = ""
) -> Inherited:
    """Write the settings into an empty directory of this build and say how to mount them.

    Args:
        sources: apt sources for the suite of the image; none for an image that has its own.
        directory: becomes `BUILD_DIR`, writable inside: apt keeps its lists there.
        uv_path: the uv program of this machine.
        apt_dir: where inside apt keeps its lists and archives, in place of `BUILD_DIR`.
    """
    # Mount points of their own inside the directory, so that the runtime has nothing to create.
    (directory / "uv").touch(mode=0o755)
    for name in ("copy", "tmp"):
        (directory / name).mkdir(mode=0o755)
    binds = [
        Bind(str(directory), BUILD_DIR, is_read_only=False, is_idmapped=True),
        Bind(uv_path, UV),
    ]
    listed = tuple(sources)
    binds += [Bind(folder, folder) for folder in local_folders(settings, listed)]
    env = {
        **settings.proxies,
        **{name.upper(): value for name, value in settings.proxies.items()},
        **_certificates(settings, directory),
        **_apt(settings, listed, directory, apt_dir or f"{BUILD_DIR}/apt"),
        **_pip(settings, directory),
    }
    return Inherited(env, tuple(binds))


def local_folders(settings: MachineSettings, sources: Iterable[AptSource]) -> tuple[str, ...]:
    """Folders of this machine that its package settings point into, none inside another."""
    wanted: set[str] = set()
    pip = settings.pip
    for url in (*pip.get("index-url"), *pip.get("extra-index-url")):
        path = _path_of(url)
        # A simple index by its usual name has the files beside it, and refers to them as ../../files.
        wanted.add(os.path.dirname(path) if os.path.basename(path) == "simple" else path)
    wanted.update(_path_of(place) or place for place in pip.get("find-links"))
    wanted.update(_path_of(source.uri) for source in sources)
    folders = {
        os.path.normpath(path) for path in wanted if path.startswith("/") and os.path.isdir(path)
    } - _NEVER_MOUNTED
    return tuple(sorted(path for path in folders if not any(path.startswith(other + "/") for other in folders)))


def _path_of(url: str) -> str:
    """The path in a URL of this machine's files, else an empty text."""
    parts = urlsplit(url)
    return unquote(parts.path).rstrip("/") if parts.scheme in ("file", "copy") else ""


def _certificates(settings: MachineSettings, directory: Path) -> dict[str, str]:
    bundle = settings.pip.first("cert") or settings.ca_bundle
    if not bundle or not os.path.isfile(bundle):
        return {}
    shutil.copyfile(bundle, directory / "ca.crt")
    names = (
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
    )
    return dict.fromkeys(names, f"{BUILD_DIR}/ca.crt")


def _apt(settings: MachineSettings, sources: tuple[AptSource, ...], directory: Path, apt_dir: str) -> dict[str, str]:
    place = directory / "apt"
    for name in ("lists/partial", "archives/partial", "keys", "sources.list.d"):
        (place / name).mkdir(parents=True, mode=0o755)
    options: dict[str, str] = {
        "APT::Get::Assume-Yes": "true",
        "APT::Install-Recommends": "false",
        # Its own user could not write to the lists, which are outside the image; the container is the confinement.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Dir::State::lists": f"{apt_dir}/lists/",
        "Dir::Cache::archives": f"{apt_dir}/archives/",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dpkg::Use-Pty": "false",
    }
    if (directory / "ca.crt").exists():
        options["Acquire::https::CAInfo"] = f"{BUILD_DIR}/ca.crt"
    for name, value in settings.apt.options:
        is_file = name.lower().rpartition("::")[2] in _FILE_OPTIONS and os.path.isfile(value)
        options[name] = _copied(value, place / "keys") if is_file else value
    if settings.apt.credentials:
        options["Dir::Etc::netrc"] = f"{BUILD_DIR}/apt/auth.conf"
        (place / "auth.conf").touch(mode=0o600)
        (place / "auth.conf").write_text(settings.apt.credentials)
    if sources:
        # Beside the image's own sources.list.d: a source the user added in an earlier step counts as well.
        options["Dir::Etc::sourcelist"] = f"{BUILD_DIR}/apt/sources.list"
        (place / "sources.list").write_text("".join(line + "\n" for line in _source_lines(sources, place / "keys")))
    lines = [f'{name} "{value}";\n' for name, value in options.items()]
    lines.append('DPkg::Options { "--force-unsafe-io"; "--force-confdef"; "--force-confold"; };\n')
    (place / "apt.conf").write_text("".join(lines))
    return {"APT_CONFIG": f"{BUILD_DIR}/apt/apt.conf"}


def _source_lines(sources: Iterable[AptSource], keys: Path) -> Iterable[str]:
    for number, source in enumerate(sources):
        if source.inline_key:
            (keys / f"inline-{number}.asc").write_text(source.inline_key)
            yield source.line(f"{BUILD_DIR}/apt/keys/inline-{number}.asc")
        else:
            signed_by = dict(source.options).get("signed-by", "")
            files = [path for path in signed_by.split(",") if os.path.isfile(path)]
            yield source.line(",".join(_copied(path, keys) for path in files))


def _copied(path: str, keys: Path) -> str:
    """Copy a file of this machine into the build directory; its path inside."""
    name = path.strip("/").replace("/", "-")
    shutil.copyfile(path, keys / name)
    return f"{BUILD_DIR}/apt/keys/{name}"


def _pip(settings: MachineSettings, directory: Path) -> dict[str, str]:
    """Settings for uv, and the same for a pip that the user's own commands may call."""
    pip = settings.pip
    env = {
        "UV_CACHE_DIR": CACHE_DIR,
        # A link to a file of a layer below makes overlayfs copy it all the same, and then there are two names to keep.
        "UV_LINK_MODE": "copy",
        "UV_COMPILE_BYTECODE": "1",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        # As pip does it: the best version of all indexes, whatever their order.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    constraints = [path for path in pip.get("constraint") if os.path.isfile(path)]
    for number, path in enumerate(constraints):
        shutil.copyfile(path, directory / f"constraint-{number}.txt")
    inside = " ".join(f"{BUILD_DIR}/constraint-{number}.txt" for number in range(len(constraints)))
    find_links = [f"file://{place}" if place.startswith("/") else place for place in pip.get("find-links")]
    found = {
        "UV_DEFAULT_INDEX": pip.first("index-url"),
        "PIP_INDEX_URL": pip.first("index-url"),
        "UV_EXTRA_INDEX_URL": " ".join(pip.get("extra-index-url")),
        "PIP_EXTRA_INDEX_URL": " ".join(pip.get("extra-index-url")),
        "UV_FIND_LINKS": ",".join(find_links),
        "PIP_FIND_LINKS": " ".join(find_links),
        "UV_CONSTRAINT": inside,
        "PIP_CONSTRAINT": inside,
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host")),
        "PIP_TRUSTED_HOST": " ".join(pip.get("trusted-host")),
        "UV_HTTP_TIMEOUT": pip.first("timeout"),
        "PIP_DEFAULT_TIMEOUT": pip.first("timeout"),
        "UV_NO_INDEX": "1" if pip.first("no-index").lower() in ("1", "true", "yes", "on") else "",
        "PIP_NO_INDEX": "1" if pip.first("no-index").lower() in ("1", "true", "yes", "on") else "",
    }
    if pip.first("proxy"):
        env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), pip.first("proxy"))
    return env | {name: value for name, value in found.items() if value}
