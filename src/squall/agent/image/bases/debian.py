"""Base root file systems: a minimal Debian or Ubuntu with its Python, made by mmdebstrap from the machine's mirrors.

No registry is needed: it works wherever the machine's own apt does. A mirror has more suites than the one the machine
runs; the others are asked of the same mirror, with the same keys. See docs/decisions/0007.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.settings import AptSource, MachineSettings
from squall.agent.image.machine.tool import PATH, WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.runtime.removal import remove_tree

# Which Python a suite has is a fact about the world (as of 2025): a suite never changes it after its release.
_PYTHON_OF_SUITE = {
    "debian": {"bookworm": "3.11", "trixie": "3.13"},
    "ubuntu": {"jammy": "3.10", "noble": "3.12"},
}
_COMPONENTS = {"debian": ("main",), "ubuntu": ("main", "universe")}
_POCKETS = ("", "-updates", "-security")
_PACKAGES = ("python3", "python3-venv", "ca-certificates", "?exact-name(usr-is-merged)")
"""The last one is a pattern, so that a suite without it is fine; it keeps the package usrmerge with all of Perl out."""
_MERGED_USR_HOOKS = "/usr/share/mmdebstrap/hooks/maybe-merged-usr"
_TIMEOUT_S = 900.0

# Documentation and translations are not wanted from later packages either; licences stay.
_DPKG_EXCLUDES = """path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
"""

# Runs in the new root with /proc and /dev in place. Debian keeps pip for virtual environments only, as a wheel that can
# install itself. Its bytecode is checked against nothing, because its files get another time afterwards.
_INSIDE = """set -e
wheel=$(ls /usr/share/python-wheels/pip-*.whl)
python3 -I "$wheel/pip" -q --isolated install --no-index --no-compile --no-cache-dir \
    --break-system-packages --root-user-action ignore "$wheel" 2>/dev/null \
|| python3 -I "$wheel/pip" -q --isolated install --no-index --no-compile --no-cache-dir \
    --root-user-action ignore "$wheel"
python3 -I -m compileall -q -j1 --invalidation-mode unchecked-hash /usr/local/lib/python3.*/dist-packages
python3 -I -c 'import platform; print(platform.python_version())' > /squall-python-version
"""


class BaseUnavailable(Exception):
    """A base cannot be made here; the message says which can, or what is missing."""


@dataclass(frozen=True, slots=True)
class DebianBase:
    """A suite this machine's mirrors should have."""

    suite: str
    python_version: str
    sources: tuple[AptSource, ...]


def known_bases(settings: MachineSettings) -> tuple[DebianBase, ...]:
    """The bases that can be asked of this machine's mirrors, its own distribution's first."""
    families = sorted(_PYTHON_OF_SUITE, key=lambda family: family != settings.distribution)
    return tuple(
        DebianBase(suite, python_version, sources)
        for family in families
        for suite, python_version in _PYTHON_OF_SUITE[family].items()
        if (sources := _sources_of(suite, family, settings))
    )


def sources_of_suite(suite: str, settings: MachineSettings) -> tuple[AptSource, ...]:
    """This machine's mirrors for a suite, not necessarily the machine's own; nothing for a suite unknown to us."""
    for family, suites in _PYTHON_OF_SUITE.items():
        if suite in suites:
            return _sources_of(suite, family, settings)
    return ()


def python_of_suite(suite: str) -> str:
    """The series of Python that a suite has; empty for a suite unknown to us."""
    return next((suites[suite] for suites in _PYTHON_OF_SUITE.values() if suite in suites), "")


def find_base(python_version: str, settings: MachineSettings) -> DebianBase | None:
    """The base that has this series of Python, if any has."""
    return next((base for base in known_bases(settings) if base.python_version == python_version), None)


def make_debian(
    base: DebianBase, settings: MachineSettings, scratch: Scratch, root: Path, output: Output
) -> dict[str, str]:
    """Make a base in the directory `root`, which does not exist yet; returns the facts of the layer.

    Raises:
        BaseUnavailable: it cannot be had.
    """
    _bootstrap(base, settings, scratch, root, output)
    full_version = (root / "squall-python-version").read_text().strip()
    _strip(root)
    return {"python_path": "/usr/bin/python3", "python_version": full_version, "suite": base.suite}


def _sources_of(suite: str, family: str, settings: MachineSettings) -> tuple[AptSource, ...]:
    """The machine's sources of a distribution with the suite put in place of theirs."""
    pockets = {known + pocket: pocket for known in _PYTHON_OF_SUITE[family] for pocket in _POCKETS}
    if settings.distribution == family:
        # An own suite that is not in our table (an interim release), or named by its role.
        own = (settings.codename, "stable", "oldstable", "testing")
        pockets |= {name + pocket: pocket for name in own if name for pocket in _POCKETS}
    found: list[AptSource] = []
    for source in settings.apt.sources:
        if source.suite not in pockets or "main" not in source.components:
            continue
        wanted = replace(source, suite=suite + pockets[source.suite], components=_COMPONENTS[family])
        if wanted not in found:
            found.append(wanted)
    return tuple(found) if any(source.suite == suite for source in found) else ()


def _bootstrap(base: DebianBase, settings: MachineSettings, scratch: Scratch, root: Path, output: Output) -> None:
    _refuse_missing_tools()
    lines = []
    for number, source in enumerate(base.sources):
        key_path = ""
        if source.inline_key:
            key_path = str(scratch.path / f"key-{number}.asc")
            Path(key_path).write_text(source.inline_key)
        lines.append(source.line(key_path))
    argv = _isolated(
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=apt",
        # Nothing of a half-made base is ever used, and `commit` writes all of it out at once.
        "--dpkgopt=force-unsafe-io",
        f"--include={','.join(_PACKAGES)}",
        *(f'--aptopt={name} "{value}"' for name, value in _apt_options(settings, scratch)),
        *((f"--hook-dir={_MERGED_USR_HOOKS}",) if os.path.isdir(_MERGED_USR_HOOKS) else ()),
        '--customize-hook=chroot "$1" sh -c \'' + _INSIDE.replace("'", "'\\''") + "'",
        base.suite,
        str(root),
        *lines,
    )
    # Its temporary files go where the next sweep finds them, should it be killed.
    temporary = scratch.path / "tmp"
    temporary.mkdir(mode=0o700)
    environ = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", "TMPDIR": str(temporary), **settings.proxies}
    try:
        run_tool(argv, environ, output, Watch(_TIMEOUT_S), keep_fds=(scratch.lock_fd,))
    except ToolFailed as failure:
        raise BaseUnavailable(_explained(base, str(failure))) from None


def _refuse_missing_tools() -> None:
    if os.geteuid() != 0:
        raise BaseUnavailable("cannot make a base image: this needs root; run it with sudo")
    missing = [tool for tool in ("mmdebstrap", "unshare", "setpriv", "chroot") if not shutil.which(tool, path=PATH)]
    if missing:
        package = "mmdebstrap" if missing == ["mmdebstrap"] else "mmdebstrap util-linux coreutils"
        raise BaseUnavailable(f"cannot make a base image: {', '.join(missing)} is missing; apt-get install {package}")


def _apt_options(settings: MachineSettings, scratch: Scratch) -> Iterable[tuple[str, str]]:
    yield from settings.apt.options
    if settings.apt.credentials:
        path = scratch.path / "auth.conf"
        path.touch(mode=0o600)
        path.write_text(settings.apt.credentials)
        yield "Dir::Etc::netrc", str(path)


def _isolated(*command: str) -> tuple[str, ...]:
    """The command with mounts and processes of its own, which all end with it and with the process that started it."""
    namespaces = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
    return (*WITH_PARENT, *namespaces, *command)


def _explained(base: DebianBase, tail: str) -> str:
    what = f"cannot make a base image with Python {base.python_version} from the suite {base.suite}: "
    if re.search(r"NO_PUBKEY|not signed|public key is not available", tail):
        return (
            what + f"this machine does not have the keys {base.suite} is signed with;"
            f" upgrade the keyring package (debian-archive-keyring or ubuntu-keyring)\n{tail}"
        )
    if re.search(r"404 +Not Found|does not have a Release file", tail):
        return what + f"the mirror does not have it; use a full mirror or another Python\n{tail}"
    return what + f"mmdebstrap failed:\n{tail}"


def _strip(root: Path) -> None:
    """Take out what belongs to this machine or to the hour, and give new files the time of the newest packaged one."""
    newest_s = _newest_packaged_s(root)
    for directory in _EMPTIED:
        _empty(root / directory)
    for pattern in _LEFTOVERS:
        for path in root.glob(pattern):
            path.unlink()
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
    # Files of these names are mounted over in every container; with empty ones here nothing needs to be created then.
    for name in ("resolv.conf", "hosts", "hostname"):
        path = root / "etc" / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o644)
    (root / "etc/dpkg/dpkg.cfg.d/squall-slim").write_text(_DPKG_EXCLUDES)
    python = root / "usr/bin/python"
    if not python.exists():
        python.symlink_to("python3")
    _clamp_times(root, newest_s)


_EMPTIED = (
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/tmp",
    "var/log",
    "var/lib/apt/lists",
    "var/cache/apt",
    "etc/apt/sources.list.d",
    "etc/apt/auth.conf.d",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
)
_LEFTOVERS = (
    "squall-python-version",
    "etc/apt/sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "etc/.pwd.lock",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/ssh/ssh_host_*",
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/*-old",
    "var/lib/dpkg/*-old",
    # The image's Python is the user's own: installing into it is the point.
    "usr/lib/python3*/EXTERNALLY-MANAGED",
)


def _empty(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_tree(str(path))
        else:
            path.unlink()


def _newest_packaged_s(root: Path) -> float:
    """The newest time of a file that came out of a package; what was made just now has times of today."""
    made_since_s = time.time() - _TIMEOUT_S - 3_600  # tidy: compared with times of files
    times = [path.lstat().st_mtime for path in (root / "usr").rglob("*") if not path.is_dir()]
    return max((stamp for stamp in times if stamp < made_since_s), default=made_since_s)


def _clamp_times(root: Path, newest_s: float) -> None:
    # Bytecode names the time of its source. Sources out of packages are older than `newest_s` and keep theirs.
    for directory, _, files in os.walk(root, topdown=False):
        for name in (*(os.path.join(directory, file) for file in files), directory):
            if os.lstat(name).st_mtime > newest_s:
                os.utime(name, (newest_s, newest_s), follow_symlinks=False)
