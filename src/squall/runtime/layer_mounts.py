"""Image files of layers, each mounted once for all the containers that stand on it.

A layer is a directory or an EROFS image. Images are mounted in a mount namespace that has nothing else and that nobody
is in: a container's first process visits it to take copies of the mounts, and with them shares the memory that the
files are cached in. The namespace is gone with the spawner that holds it, so nothing is ever left on the machine.

A file that is mounted keeps its space on the disk when it is removed. Hence nothing stays mounted without need whose
file is gone, and who removes files says so (`drop_removed`).

Two ways, in this order: the kernel reads the file itself (Linux 6.12 and newer), or a loop device stands between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from squall.runtime import syscalls as sc
from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.wire import failure_from_json, failure_to_json

FROM_FILE = "file"
FROM_LOOP_DEVICE = "loop"
WAYS = (FROM_FILE, FROM_LOOP_DEVICE)
IDLE_MAX = 256
"""Images nobody stands on that stay mounted, more than the deepest image has; first goes what was let go first."""

_LOOP_CONTROL, _LOOP_MAJOR = "/dev/loop-control", 7
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4
_LOOP_ATTEMPTS = 100
_CHILD_TIMEOUT_S = 10.0
_OPEN = os.O_RDONLY | os.O_CLOEXEC
_FROM_FILE_SINCE = (6, 12)
_MODPROBE_TIMEOUT_S = 10.0
_ERRNO_OF_OTHER_WAY = {errno.ENOTBLK, errno.EINVAL}

_OF_A_PROCESS = "/proc/"

_Identity = tuple[int, int, int]


@dataclass(slots=True)
class _Mounted:
    point: str
    path: str
    is_served: bool = False
    """A process serves the file while it comes from elsewhere; nothing keeps that one mounted without need."""
    users: set[str] = field(default_factory=set)


class LayerMounts:
    """The images that are mounted, and the containers that stand on them."""

    def __init__(self, images_fd: int, ways: Sequence[str] = WAYS) -> None:
        """Images are mounted in the namespace `images_fd`, made by `make_image_namespace`."""
        self._images_fd = images_fd
        self._ways = tuple(ways)
        self._count = 0
        # The order is that of being let go; those in use are anywhere.
        self._mounted: dict[_Identity, _Mounted] = {}

    def take(self, container_id: str, layers: Sequence[str]) -> dict[str, str]:
        """Where in the namespace each of the layers that are images is mounted; they stay so until `release`.

        Raises:
            RuntimeFailure: a layer is not there, or is no image.
            FeatureMissing: this kernel mounts no images.
        """
        points: dict[str, str] = {}
        trees: dict[str, int] = {}
        try:
            for layer in layers:
                identity = _identity(layer)
                if identity is None:
                    continue
                mounted = self._mounted.get(identity)
                if mounted is None:
                    tree = self._mount(layer)
                    self._count += 1
                    mounted = self._mounted[identity] = _Mounted(
                        f"/{self._count}", layer, layer.startswith(_OF_A_PROCESS)
                    )
                    trees[mounted.point] = tree
                mounted.users.add(container_id)
                points[layer] = mounted.point
            if trees:
                attach(self._images_fd, trees)
        except BaseException:
            for identity, mounted in list(self._mounted.items()):
                if mounted.point in trees:
                    del self._mounted[identity]
            self.release(container_id)
            raise
        finally:
            for tree in trees.values():
                os.close(tree)
        return points

    def release(self, container_id: str) -> None:
        """A container is gone, or was never there."""
        released: list[_Identity] = []
        for identity, mounted in list(self._mounted.items()):
            if container_id in mounted.users:
                mounted.users.discard(container_id)
                # To the end of the line of those that may go.
                self._mounted[identity] = self._mounted.pop(identity)
                released.append(identity)
        idle = self._idle()
        leaving = {*idle[: max(0, len(idle) - IDLE_MAX)], *(one for one in idle if self._mounted[one].is_served)}
        leaving.update(one for one in released if self._is_removed(one))
        self._unmount([identity for identity in idle if identity in leaving])

    def drop_removed(self) -> None:
        """Let go of the images that nobody stands on and whose files were removed: only then is their space free."""
        self._unmount([identity for identity in self._idle() if self._is_removed(identity)])

    def _idle(self) -> list[_Identity]:
        """Those that nobody stands on, the longest unused first."""
        return [identity for identity, mounted in self._mounted.items() if not mounted.users]

    def _is_removed(self, identity: _Identity) -> bool:
        try:
            return _identity(self._mounted[identity].path) != identity
        except RuntimeFailure:
            return True

    def _unmount(self, identities: Sequence[_Identity]) -> None:
        points = [self._mounted.pop(identity).point for identity in identities]
        if points:
            detach(self._images_fd, points)

    def _mount(self, image: str) -> int:
        """A mount of an image that is attached nowhere yet."""
        for way in self._ways:
            try:
                return _make_mount(image, way)
            except RuntimeFailure as failure:
                number = failure.__cause__.errno if isinstance(failure.__cause__, OSError) else None
                if number not in _ERRNO_OF_OTHER_WAY or way == self._ways[-1]:
                    raise _explained(image, number, failure) from failure
                if number == errno.ENOTBLK:
                    # This kernel will say so of every file.
                    self._ways = tuple(one for one in self._ways if one != way)
        raise FeatureMissing(f"cannot mount layer {image}: no way to mount images is left")


def make_image_namespace(directory: str) -> int:
    """A descriptor of a mount namespace whose root is an empty file system in memory, and that nobody is in.

    Args:
        directory: made if missing; what is seen there is not changed.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)

    def settle() -> None:
        sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
        sc.mount("squall", directory, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=700,size=1m")
        os.chdir(directory)
        sc.pivot_root(".", ".")
        sc.unmount(".")

    # The namespace lives in its descriptor once the process has ended.
    found: list[int] = []
    _in_child(settle, sc.CLONE_NEWNS, lambda pid: found.append(os.open(f"/proc/{pid}/ns/mnt", _OPEN)))
    return found[0]


def _identity(layer: str) -> _Identity | None:
    """What makes an image file this one; None for a directory."""
    try:
        status = os.stat(layer)
    except OSError as error:
        raise RuntimeFailure(f"cannot use layer {layer}: {error.strerror}; build its image again") from error
    # A file that was replaced is another image, whatever it is called.
    return None if stat.S_ISDIR(status.st_mode) else (status.st_dev, status.st_ino, status.st_mtime_ns)


def attach(images_fd: int, trees: Mapping[str, int]) -> None:
    """Attach mounts, by where, in the namespace of images."""
    _in_namespace(images_fd, partial(_attach, trees))


def detach(images_fd: int, points: Sequence[str]) -> None:
    """Take them away again."""
    _in_namespace(images_fd, partial(_detach, points))


def _attach(trees: Mapping[str, int]) -> None:
    for point, tree in trees.items():
        os.mkdir(point)
        sc.move_mount(tree, point)


def _detach(points: Sequence[str]) -> None:
    for point in points:
        sc.unmount(point)
        os.rmdir(point)


def in_namespace(images_fd: int, action: Callable[[], None]) -> None:
    """Do something in the namespace of images, in a process of its own; wait for it.

    Raises:
        RuntimeFailure: it has failed, as the action has raised it.
    """
    _in_namespace(images_fd, action)


def _in_namespace(images_fd: int, action: Callable[[], None]) -> None:
    def visit() -> None:
        sc.setns(images_fd, sc.CLONE_NEWNS, "the namespace of images")
        action()

    in_child(visit)


def in_child(action: Callable[[], None], flags: int = 0) -> None:
    """Do something in a process of its own, with namespaces of its own as `flags` say; wait for it.

    Raises:
        RuntimeFailure: it has failed, as the action has raised it.
    """
    _in_child(action, flags, lambda pid: None)


def _in_child(action: Callable[[], None], flags: int, while_there: Callable[[int], None]) -> None:
    """Do something in a process of its own, and wait for it: a few milliseconds.

    Args:
        while_there: called with its pid when the action is done and before it ends.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sc.clone(flags, signal.SIGCHLD)
    if pid == 0:
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        ours.close()
        said = b"\n"
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - told to the parent, which raises it
            failure = error if isinstance(error, RuntimeFailure) else RuntimeFailure(repr(error))
            said = json.dumps(failure_to_json(failure)).encode()
        theirs.send(said)
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    # Every container of the node waits with us.
    ours.settimeout(_CHILD_TIMEOUT_S)
    try:
        said = ours.recv(65_536)
        if said == b"\n":
            while_there(pid)
            return
    except TimeoutError as error:
        os.kill(pid, signal.SIGKILL)
        what = f"cannot mount images: the kernel was not done with it after {_CHILD_TIMEOUT_S:.0f} s"
        raise RuntimeFailure(what) from error
    finally:
        ours.close()
        os.waitpid(pid, 0)
        os.close(pidfd)
    if not said:
        raise RuntimeFailure("cannot mount images: the process that does it was killed")
    raise failure_from_json(json.loads(said))


def make_image_mount(image: str) -> int:
    """A mount of an image that is attached nowhere, in whichever way this kernel knows.

    Raises:
        RuntimeFailure: it is no image.
        FeatureMissing: this kernel mounts none.
    """
    return LayerMounts(-1)._mount(image)


def _make_mount(image: str, way: str) -> int:
    attributes = sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NODEV
    if way == FROM_FILE:
        return sc.make_mount(image, "erofs", attributes)
    descriptor, device = _loop_device(image)
    try:
        # The device lets go of the file by itself when the last mount of it is gone.
        return sc.make_mount(device, "erofs", attributes)
    finally:
        os.close(descriptor)


def _loop_device(image: str) -> tuple[int, str]:
    """A loop device over a file: its descriptor and its name."""
    file = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            return _free_loop_device(control, file)
        finally:
            os.close(control)
    except FileNotFoundError as error:
        raise FeatureMissing(
            f"cannot mount layer {image}: {error.filename} is missing; load the kernel module `loop`"
        ) from error
    except OSError as error:
        raise RuntimeFailure(f"cannot make a loop device of layer {image}: {error.strerror}") from error
    finally:
        os.close(file)


def _free_loop_device(control: int, file: int) -> tuple[int, str]:
    # file, block size, loop_info64 (152 bytes after the first 80 are names we leave empty), 8 reserved numbers
    flags = _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR
    config = struct.pack("<II5Q4I64s64s32s2Q8Q", file, 4096, *(0,) * 5, 0, 0, 0, flags, b"", b"", b"", 0, 0, *(0,) * 8)
    for _ in range(_LOOP_ATTEMPTS):
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        device = f"/dev/loop{number}"
        if not os.path.exists(device):
            os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(descriptor)
            # Somebody else was quicker.
            if error.errno != errno.EBUSY:
                raise
        else:
            return descriptor, device
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _explained(image: str, number: int | None, failure: RuntimeFailure) -> RuntimeFailure:
    if number in (errno.ENODEV, errno.ENOTBLK):
        return FeatureMissing(
            f"cannot mount layer {image}: this kernel mounts no EROFS images; it has none (CONFIG_EROFS_FS, in newer "
            "kernels the module `erofs`)"
        )
    if number in (errno.EINVAL, errno.EUCLEAN):
        return RuntimeFailure(f"cannot mount layer {image}: it is no EROFS image, or is damaged; build its image again")
    return failure


def can_mount_images() -> bool:
    """Whether this machine's kernel mounts EROFS images in one of our ways, as far as it says without trying."""
    if not _has_erofs():
        # Where it is a module, the kernel lists it once it is loaded.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["modprobe", "-q", "erofs"], capture_output=True, timeout=_MODPROBE_TIMEOUT_S, check=False)
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    return _has_erofs() and (release >= _FROM_FILE_SINCE or os.path.exists(_LOOP_CONTROL))


def can_mount_from_file() -> bool:
    """Whether the kernel reads an image through its file alone, whatever serves that."""
    release = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])
    return can_mount_images() and release >= _FROM_FILE_SINCE


def _has_erofs() -> bool:
    with open("/proc/filesystems", encoding="ascii") as file:
        return "erofs" in file.read().split()
