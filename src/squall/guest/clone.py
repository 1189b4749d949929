"""A fork of a template on its way to being a container: it joins what was made for it, and waits to be told who it is.

    spawner                                clone
      how to join, descriptors ──────────▶  p: enters namespaces and control groups, forks k, and ends
      the filter of system calls ────────▶
      ◀────────────────── joined or error   k: confines itself as any container is confined
      wait, if it is to be parked ───────▶  k: connects to its agent
      env, stdout and stderr ────────────▶
      ◀─────────────────── begun or error   k: goes on as the guest
      ◀────────────────────────────── exit  k: before it ends by itself

All of it over the clone's own socket, one JSON object or program a message. There are two forks, because only children
of a process that has entered a namespace of processes are in it. The first one runs no hooks, so that those of user
code run once: in the process that stays.

Nothing here is relied upon: user code may have run before any line of it. The spawner looks for itself at what the
clone has become before it gives it an identity. What fails is said, and the clone ends at once: a plain start follows.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from squall.guest import file_pages, libc
from squall.guest.inbox import Stopping
from squall.guest.link import connect_waiting, introduce
from squall.guest.loading import Served
from squall.guest.renewal import Renewals
from squall.protocol.guest import CODE_DIR, ENV_CONTAINER_ID, ENV_TOKEN, Ready
from squall.sdk._fork_guard import ForkGuard

if TYPE_CHECKING:
    from array import array

NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
JOIN_S = 10.0
"""How long the spawner may take to say how to join."""
MESSAGE_BYTES_MAX = 1024 * 1024
WAY_BYTES_MAX = 64 * 1024
"""Of what says how to join. Room for more would be mapped and unmapped for each message."""
_DESCRIPTORS_MAX = 32
_OURS = "SQUALL_"


class Kit(NamedTuple):
    """What the template has made ready for each of its forks."""

    control: socket.socket
    """The template's own: nothing for a fork, and closed before hooks run in it."""
    forks: ForkGuard
    environment: Mapping[str, str]
    """What the template was started with."""
    directory: str
    """Where user code has gone to, if it has."""
    files: Mapping[int, str]
    """Descriptors open for reading, and where each file is."""
    outputs: Mapping[int, int]
    """Descriptors beside 1 and 2 that are the same pipes as these."""
    pages: array[int]
    """Of files, in the template's memory: see `file_pages`."""
    renewals: Renewals
    thread_counts: tuple[Callable[[], None], ...]
    """Of libraries, to be set when the environment is there."""
    rehearse: Callable[[], None]
    """Goes through what follows, as far as nothing comes of it: most of the time that a fork takes it copies pages of
    memory that it is the first to touch. One that is parked has the time for it."""
    served: Served | None
    """What was loaded."""
    ready: Ready | None
    """What a fork is ready for as soon as it is somebody; None where that is to be seen then."""
    socket_path: str
    """Of its agent."""
    template: object
    """What it was itself. To let go of it all would copy the pages that it is on."""


class Clone:
    """A fork that has begun."""

    def __init__(self, channel: socket.socket, kit: Kit, started: float, waiting: socket.socket | None) -> None:
        self.served = kit.served
        self.ready = kit.ready
        self.started = started
        self.waiting = waiting
        self._kit = kit
        self._channel = channel
        self._pid = os.getpid()

    def end(self, code: int) -> None:
        """Say what the process ends with: not every kernel tells who did not start it."""
        if os.getpid() == self._pid:  # a child of user code ends on the same way
            with contextlib.suppress(OSError):
                _tell(self._channel, {"exit": code})


def begin_fork(channel: socket.socket, kit: Kit) -> Clone | None:
    """In the first child of a template: become a container. Returns in the process that goes on as one; others end."""
    try:
        # Before any hook of user code runs: by this socket come the ways into the cells of all other forks.
        kit.control.close()
        channel.settimeout(JOIN_S)
        asked, descriptors = _receive_record(channel, WAY_BYTES_MAX)
        program, _ = receive(channel, WAY_BYTES_MAX)
        _join(asked, descriptors)
        # What hooks draw from then on is that fork's, whoever it will be; those with `before=` draw here, ahead of it.
        kit.renewals.run_in_child()
        if os.fork():
            os._exit(0)
        kit.renewals.check()
        later = _confine(asked, program, kit, descriptors)
        _tell(channel, {"joined": 1})
        channel.settimeout(None)
        if kit.served is None:
            _look_again()
        return _be_told(channel, kit, later)
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, and nothing may unwind past here
        _give_up(channel, error)


def _join(asked: Mapping[str, Any], descriptors: list[int]) -> None:
    count = asked["namespaces"]
    if len(descriptors) != count + asked["cgroups"] or count not in (0, len(NAMESPACES)):
        raise libc.CallFailed(f"cannot join: {len(descriptors)} descriptors came for {count} namespaces")
    for kind, descriptor in zip(NAMESPACES[:count], descriptors[:count], strict=True):
        libc.enter_namespace(descriptor, kind)
    with _doing("enter a control group"):
        for descriptor in descriptors[count:]:
            os.write(descriptor, b"0")


def _confine(asked: Mapping[str, Any], program: bytes, kit: Kit, descriptors: list[int]) -> _Later | None:
    """As the first process of any container is confined before its program is executed. Returns what is to be done when
    its volumes are there, if it has any."""
    os.setsid()
    for descriptor in descriptors:
        os.close(descriptor)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    later = _Later([], kit.directory or asked.get("cwd") or "") if asked.get("has_volumes") else None
    for file in [_OpenFile.of(descriptor, path) for descriptor, path in kit.files.items()]:
        try:
            file.open_again()
        except libc.CallFailed:
            if later is None:
                raise
            file.close()
            later.files.append(file)
    try:
        _change_directory(kit.directory or asked.get("cwd") or "")
    except libc.CallFailed:
        if later is None:
            raise
    if "uid" in asked:
        _drop_privileges(asked)
    libc.set_attribute(libc.PR_SET_NO_NEW_PRIVS, 1, "forbid new privileges")
    # Entering a user namespace has cleared it: what is in /proc of this process would be the machine's root's.
    libc.set_attribute(libc.PR_SET_DUMPABLE, 1, "be dumpable")
    if program:
        libc.install_filter(program)
    elif asked["namespaces"]:
        raise libc.CallFailed("cannot join: no filter of system calls came")
    return later


def _look_again() -> None:
    """The user's files are there only now: what imports know of their directory, and of those that there were not, is
    of before. All else is as it was; what it takes to forget that too is milliseconds."""
    for directory, finder in list(sys.path_importer_cache.items()):
        if finder is None or directory == CODE_DIR:
            del sys.path_importer_cache[directory]


def _drop_privileges(asked: Mapping[str, Any]) -> None:
    kept = asked["kept"] if asked["uid"] == 0 else ()
    for capability in range(asked["last_capability"] + 1):
        if capability not in kept:
            libc.set_attribute(libc.PR_CAPBSET_DROP, capability, f"drop capability {capability}")
    with _doing(f"become user {asked['uid']} of group {asked['gid']}"):
        os.setgroups([])
        os.setresgid(asked["gid"], asked["gid"], asked["gid"])
        os.setresuid(asked["uid"], asked["uid"], asked["uid"])
    libc.set_capabilities(sum(1 << capability for capability in kept))


class _OpenFile(NamedTuple):
    """A file that the template has open for reading, which is opened again as it is in this container.

    By its path: what the template has opened leads to the template's files, of which all forks have theirs.
    """

    descriptor: int
    path: str
    identity: tuple[int, int, int]
    offset: int
    is_inheritable: bool

    @classmethod
    def of(cls, descriptor: int, path: str) -> _OpenFile:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        return cls(descriptor, path, _identity(descriptor), offset, os.get_inheritable(descriptor))

    def open_again(self) -> None:
        what = f"open the file {self.path} again, which the template has open"
        with _doing(what):
            again = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _identity(again) != self.identity:
                raise libc.CallFailed(f"cannot {what}: it is another one here")
            os.lseek(again, self.offset, os.SEEK_SET)
            self._put(again)
        finally:
            os.close(again)

    def close(self) -> None:
        """Let nothing lead to the template by it; its number stays."""
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._put(null)
        os.close(null)

    def _put(self, opened: int) -> None:
        os.dup2(opened, self.descriptor, inheritable=self.is_inheritable)


def _identity(descriptor: int) -> tuple[int, int, int]:
    found = os.fstat(descriptor)
    return found.st_mode, found.st_size, found.st_mtime_ns


class _Later(NamedTuple):
    """What there is to be done when volumes are there, which is when it is known who this is."""

    files: list[_OpenFile]
    directory: str

    def do(self, kit: Kit) -> None:
        for file in self.files:
            file.open_again()
        # Also where it could be entered: a volume may be there now.
        _change_directory(self.directory)
        if kit.served is None:
            _look_again()


def _change_directory(directory: str) -> None:
    if directory:
        with _doing(f"change to the directory {directory}"):
            os.chdir(directory)


def _be_told(channel: socket.socket, kit: Kit, later: _Later | None) -> Clone:
    """Wait for the identity, and take it on."""
    waiting = None
    asked, descriptors = _receive_record(channel)
    if "wait" in asked:
        waiting = connect_waiting(kit.socket_path, kit.ready)
        adopt_environment(dict(os.environ), kit.environment)
        with contextlib.suppress(Exception):  # it would serve without
            file_pages.map_again(kit.pages)
            kit.rehearse()
        asked, descriptors = _receive_record(channel)
    started = time.monotonic()
    if later is not None:
        later.do(kit)
    if waiting is not None:
        introduce(waiting, kit.socket_path, asked["env"].get(ENV_TOKEN, ""), asked["env"].get(ENV_CONTAINER_ID, ""))
    for number, descriptor in zip((1, 2), descriptors, strict=True):
        os.dup2(descriptor, number)
    for other, number in kit.outputs.items():
        os.dup2(number, other, inheritable=os.get_inheritable(other))
    for descriptor in descriptors:
        os.close(descriptor)
    adopt_environment(asked["env"], kit.environment)
    kit.forks.take_again()
    for set_count in kit.thread_counts:
        set_count()
    clone = Clone(channel, kit, started, waiting)
    _tell(channel, {"begun": 1})
    return clone


def adopt_environment(given: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Make `given` the environment, of Python and of C, with what user code has changed in the one `before`: it would
    have changed the same in a plain start."""
    environ = os.environ
    wanted = {name: value for name, value in given.items() if name in environ or name not in before or _is_ours(name)}
    changed = {name: value for name, value in environ.items() if before.get(name) != value and not _is_ours(name)}
    wanted.update(changed)
    zone = environ.get("TZ")
    for name in environ.keys() - wanted.keys():
        del environ[name]
    for name, value in wanted.items():
        if environ.get(name) != value:
            environ[name] = value
    if environ.get("TZ") != zone:
        time.tzset()


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS)


def receive(channel: socket.socket, bytes_max: int = MESSAGE_BYTES_MAX) -> tuple[bytes, list[int]]:
    """One message, with the descriptors that came along. An empty one may also mean that the other side has gone."""
    # Not `socket.recv_fds`, which takes no notice of its flags: what a hook of the next fork starts would inherit them.
    space = socket.CMSG_LEN(_DESCRIPTORS_MAX * array("i").itemsize)
    data, ancillary, flags, _ = channel.recvmsg(bytes_max, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = [number for _, kind, given in ancillary if kind == socket.SCM_RIGHTS for number in array("i", given)]
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise libc.CallFailed(f"cannot take a message of more than {bytes_max} bytes from the spawner")
    return data, descriptors


def _receive_record(channel: socket.socket, bytes_max: int = MESSAGE_BYTES_MAX) -> tuple[dict[str, Any], list[int]]:
    message, descriptors = receive(channel, bytes_max)
    if not message:
        raise Stopping  # the spawner has gone, and its containers end with it
    return json.loads(message), descriptors


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise libc.CallFailed(f"cannot {what}: {error.strerror}") from error


def _tell(channel: socket.socket, said: Mapping[str, Any]) -> None:
    channel.send(json.dumps(said).encode())


def _give_up(channel: socket.socket, error: BaseException) -> NoReturn:
    try:
        if not isinstance(error, Stopping):
            known = isinstance(error, libc.CallFailed)
            _tell(channel, {"error": str(error) if known else f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)
