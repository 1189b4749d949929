"""The data directory as programs share it: one server at a time, who may reach it, what it says of itself.

    server.lock    held by the running server, by whatever process that is
    server.sock    clients of this machine; for root, the user behind sudo, and the group squall
    server.json    pid, url, version, server_id: for people and programs; true while the lock is held
    token          opens the HTTP API; for the same users

The directory itself may be passed through by everybody and read by nobody else.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import json
import os
import pwd
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

GROUP = "squall"
SOCKET_BACKLOG = 512


class DataDirError(Exception):
    """The data directory cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ServerFile:
    """What server.json says."""

    pid: int
    url: str
    version: str
    server_id: str


@dataclass(frozen=True, slots=True)
class Owners:
    """Who may reach the server besides root."""

    uid: int
    """The user behind sudo, or root."""
    gid: int
    """The group squall, or root's."""
    has_group: bool

    def give_socket(self, path: Path) -> None:
        """Let them, and nobody else, connect to a socket: whoever may write to it."""
        os.chown(path, self.uid, self.gid)
        path.chmod(0o660 if self.has_group else 0o600)

    def give_file(self, path: Path) -> None:
        """Let them, and nobody else, read a file; the group does not write it."""
        os.chown(path, self.uid, self.gid)
        path.chmod(0o640 if self.has_group else 0o600)


def find_owners(environ: Mapping[str, str]) -> Owners:
    """Look up the user behind sudo and the group."""
    uid = int(environ["SUDO_UID"]) if environ.get("SUDO_UID", "").isdigit() else os.geteuid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        uid = os.geteuid()
    try:
        return Owners(uid, grp.getgrnam(GROUP).gr_gid, has_group=True)
    except KeyError:
        return Owners(uid, os.getegid(), has_group=False)


def settle_modes() -> None:
    """Have new files of this process be as open as their maker says, whatever the umask of whoever started it.

    With a stricter one, containers could not read what they are given; with a laxer one, others could write here.
    """
    os.umask(0o022)


def prepare(path: Path) -> None:
    """Make the directory, or see that it is a safe one.

    Raises:
        DataDirError: it is not, or cannot be made.
    """
    try:
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid not in (0, os.geteuid()):
            raise DataDirError(f"cannot use {path}: it belongs to user {found.st_uid}; chown it to root")
        if found.st_mode & 0o777 != 0o711:
            path.chmod(0o711)
        # Nobody learns from a full disk in the middle of a call what can be said at the start.
        probe = path / f".probe-{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        hint = "free space, or set SQUALL_DATA_DIR" if error.errno == errno.ENOSPC else "see that it can be written"
        raise DataDirError(f"cannot use the data directory {path}: {error.strerror}; {hint}") from error


class ServerLock:
    """The right to be the server of a data directory; the kernel takes it back when the process ends, however."""

    def __init__(self, path: Path) -> None:
        self._path = path / "server.lock"
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take it if it is free."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def is_free(self) -> bool:
        """Whether nobody has it; says nothing of the next moment."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            # Shared, so that two who look do not see each other.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(descriptor)
        return True

    def holder(self) -> int | None:
        """The process that has it, as the kernel tells everybody; None where nobody has, or that is not to be seen."""
        try:
            found = self._path.stat()
            lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            return None
        wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for words in map(str.split, lines):
            # "1: FLOCK ADVISORY WRITE 32597 fe:00:3496721 0 EOF"; those who wait for one have "->" after the number.
            if words[1:2] == ["FLOCK"] and words[3] == "WRITE" and words[5] == wanted and int(words[4]) > 0:
                return int(words[4])
        return None

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def listen(path: Path, owners: Owners) -> socket.socket:
    """A listening unix socket at `path`, reachable by its owners from the first moment on; replaces a stale one."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Made under another name: between bind and chmod it has whatever mode the umask left it.
        listener.bind(str(fresh))
        owners.give_socket(fresh)
        listener.listen(SOCKET_BACKLOG)
        listener.setblocking(False)
        fresh.rename(path)
    except BaseException:
        listener.close()
        raise
    return listener


def answers(path: Path) -> bool:
    """Whether somebody accepts connections at a unix socket."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(2.0)
        probe.connect(str(path))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def read_or_make_token(data_dir: Path, owners: Owners) -> str:
    """The token of this data directory."""
    path = data_dir / "token"
    try:
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        token = ""
    if not token:
        token = secrets.token_urlsafe(32)
        write_atomically(path, token + "\n", 0o600)
    owners.give_file(path)
    return token


def write_server_file(data_dir: Path, server: ServerFile) -> None:
    """Say what runs here."""
    write_atomically(data_dir / "server.json", json.dumps(asdict(server)) + "\n", 0o644)


def remove_server_file(data_dir: Path) -> None:
    """Say that nothing runs here any more."""
    (data_dir / "server.json").unlink(missing_ok=True)


def read_server_file(data_dir: Path) -> ServerFile | None:
    """What was last said to run here, or None."""
    try:
        value = json.loads((data_dir / "server.json").read_text(encoding="utf-8"))
        return ServerFile(int(value["pid"]), value["url"], value["version"], value["server_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_atomically(path: Path, text: str, mode: int) -> None:
    """Replace a file; readers see the old text or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
