"""Volumes of containers: versions that are mounted, and swapped for others while the container runs.

The namespace of images has a shared mount at `/volumes`. Each volume of a container has a directory there; the
container has a slave copy of that directory at its target. What is mounted on the directory appears inside, whatever
user namespace the container's mounts belong to, and nothing of it is seen on the machine.

A version is an overlay of an image of the tree, and of a directory of contents that the marks in it lead to. Lowers
never change below a mount: another version is another mount, with an upper of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure, SubPathMissing, VolumeBusy
from squall.runtime.layer_mounts import in_namespace, make_image_mount
from squall.runtime.spec import IdRange, Volume
from squall.runtime.volume_overlay import make_overlay

TOP = "/volumes"
_ATTRIBUTES = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
_HERE, _WHOLE, _OLD = "here", "whole", "old"
"""What of a volume is seen inside, all of it where that is less, and what was there before."""


def make_ground(images_fd: int) -> None:
    """Make the place of all volumes, in a new namespace of images."""

    def make() -> None:
        os.mkdir(TOP)
        sc.mount("squall", TOP, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=755,size=16m")
        sc.mount("none", TOP, None, sc.MS_SHARED)

    in_namespace(images_fd, make)


def point_of(container_id: str, name: str) -> str:
    """Where the mounts of a volume are, in the namespace of images."""
    return f"{TOP}/{container_id}/{name}"


def make_version(volume: Volume, id_range: IdRange, user_namespace_fd: int) -> int:
    """A mount of a version of a volume, attached nowhere; its descriptor.

    Raises:
        RuntimeFailure: it cannot be mounted.
    """
    subject = f"volume {volume.target}"
    image = make_image_mount(volume.image)
    try:
        sc.set_mount_attributes(image, subject, sc.MOUNT_ATTR_IDMAP, user_namespace_fd=user_namespace_fd)
        if volume.writable:
            for name in ("upper", "work"):
                path = f"{volume.writable}/{name}"
                os.makedirs(path, mode=0o755)
                os.chmod(path, 0o755)
                os.chown(path, id_range.start, id_range.start)
        attributes = _ATTRIBUTES | (0 if volume.writable else sc.MOUNT_ATTR_RDONLY)
        return make_overlay(subject, image, volume.contents, volume.writable, attributes)
    finally:
        os.close(image)


def take_place(point: str) -> int:
    """In the namespace of images: make the directory of a volume; the copy of it that a container is to have."""
    here = f"{point}/{_HERE}"
    os.makedirs(here)
    # gVisor lets a container remove a mount point that the machine has mounted something on; not one with a file below.
    os.close(os.open(f"{here}/.squall", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    return sc.open_tree(here, is_recursive=True)


def attach_version(point: str, version: int, volume: Volume, id_range: IdRange) -> None:
    """In the namespace of images: let a version be seen."""
    with _seen(point, version, volume, id_range) as seen:
        sc.move_mount(seen, f"{point}/{_HERE}")


@contextlib.contextmanager
def _seen(point: str, version: int, volume: Volume, id_range: IdRange) -> Iterator[int]:
    """What of a version is to be seen, attached nowhere. Where that is less than all of it, all of it is mounted aside,
    and stays if nothing fails."""
    if not volume.sub_path:
        yield version
        return
    whole = next(place for place in _wholes(point) if not os.path.ismount(place))
    os.makedirs(whole, exist_ok=True)
    sc.move_mount(version, whole)
    try:
        with _directory(whole, volume, id_range) as directory:
            os.fchdir(directory)
            part = sc.open_tree(".")
            os.chdir("/")
        try:
            yield part
        finally:
            os.close(part)
    except BaseException:
        sc.unmount(whole)
        raise


def _wholes(point: str) -> tuple[str, str]:
    """One is used, and the other one is free for the next version."""
    return f"{point}/{_WHOLE}", f"{point}/{_WHOLE}-other"


def attach_versions(
    images_fd: int, container_id: str, volumes: Sequence[Volume], id_range: IdRange, user_namespace_fd: int
) -> None:
    """Let versions be seen in places where nothing was seen yet. In a process of its own: it is in the namespace of
    images then.

    Raises:
        RuntimeFailure: one cannot be mounted.
    """
    versions: list[int] = []
    try:
        for volume in volumes:
            versions.append(make_version(volume, id_range, user_namespace_fd))
        sc.setns(images_fd, sc.CLONE_NEWNS, "the namespace of images")
        for volume, version in zip(volumes, versions, strict=True):
            attach_version(point_of(container_id, volume.name), version, volume, id_range)
    finally:
        # While we have them, they count as used.
        for version in versions:
            os.close(version)


@contextlib.contextmanager
def _directory(top: str, volume: Volume, id_range: IdRange) -> Iterator[int]:
    """The directory of a tree that is a volume's sub-path; links are not followed, wherever they lead."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(top, flags)
    try:
        for part in volume.sub_path.split("/"):
            try:
                below = os.open(part, flags, dir_fd=here)
            except FileNotFoundError:
                if not volume.writable:
                    what = f"it has no directory {volume.sub_path!r}, and none is made where nothing may be written"
                    remedy = "put something there first, or mount it without read_only"
                    raise SubPathMissing(f"cannot mount volume {volume.target}: {what}; {remedy}") from None
                os.mkdir(part, 0o755, dir_fd=here)
                os.chown(part, id_range.start, id_range.start, dir_fd=here)
                below = os.open(part, flags, dir_fd=here)
            except OSError as error:
                what = f"{volume.sub_path!r} in it is no directory, or leads elsewhere ({error.strerror})"
                raise SubPathMissing(f"cannot mount volume {volume.target}: {what}") from error
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def swap(images_fd: int, container_id: str, volume: Volume, id_range: IdRange, user_namespace_fd: int) -> None:
    """Let another version take the place of what is seen of a volume. The container is to be frozen meanwhile.

    What was there is still mounted where nobody sees it, until `end_swapped`: its end takes along all that is
    remembered of its names, half a second for a hundred thousand.

    Raises:
        VolumeBusy: a process uses it; nothing has changed then.
        SubPathMissing: the version has not what is mounted of it; nothing has changed.
        RuntimeFailure: the version cannot be mounted; nothing has changed.
    """
    point = point_of(container_id, volume.name)
    version = make_version(volume, id_range, user_namespace_fd)

    def change() -> None:
        here, old = f"{point}/{_HERE}", f"{point}/{_OLD}"
        wholes = [place for place in _wholes(point) if os.path.ismount(place)]
        with _seen(point, version, volume, id_range) as seen:
            _keep_mounted(here, old)
            _unmount_unless_busy(here, volume)
            try:
                sc.move_mount(seen, here)
            except BaseException:
                _keep_mounted(old, here)
                raise
        for number, place in enumerate(wholes):
            _keep_mounted(place, f"{old}-whole-{number}")
            sc.unmount(place)

    try:
        in_namespace(images_fd, change)
    finally:
        os.close(version)


def _keep_mounted(place: str, other: str) -> None:
    """What is mounted at one place is mounted at another one too."""
    copy = sc.open_tree(place)
    try:
        sc.set_propagation(copy, place, sc.MS_PRIVATE)
        os.makedirs(other, exist_ok=True)
        sc.move_mount(copy, other)
    finally:
        os.close(copy)


def _unmount_unless_busy(place: str, volume: Volume) -> None:
    try:
        sc.unmount(place, 0)
    except RuntimeFailure as failure:
        if isinstance(failure.__cause__, OSError) and failure.__cause__.errno == errno.EBUSY:
            raise VolumeBusy(f"cannot let go of volume {volume.target}: its files are in use") from failure
        raise


def end_swapped(images_fd: int, container_id: str, name: str) -> None:
    """Let go of what was there before a swap. Idempotent."""
    point = point_of(container_id, name)

    def end() -> None:
        for place in os.listdir(point) if os.path.isdir(point) else ():
            if place.startswith(_OLD):
                _unmount_all(f"{point}/{place}")

    in_namespace(images_fd, end)


def drop_versions(images_fd: int, container_id: str) -> None:
    """Let go of all volumes of a container that is gone. Idempotent. In a process of its own, as `attach_versions`."""
    sc.setns(images_fd, sc.CLONE_NEWNS, "the namespace of images")
    top = f"{TOP}/{container_id}"
    if not os.path.isdir(top):
        return
    for name in os.listdir(top):
        for one in os.listdir(f"{top}/{name}"):
            place = f"{top}/{name}/{one}"
            _unmount_all(place)
            for file in os.listdir(place):
                os.unlink(f"{place}/{file}")
            os.rmdir(place)
        os.rmdir(f"{top}/{name}")
    os.rmdir(top)


def _unmount_all(place: str) -> None:
    """Let go of whatever is mounted at a place. What is there of the file system around it, as a directory is that a
    swap has kept after its version had gone, looks like none."""
    while True:
        try:
            sc.unmount(place)
        except RuntimeFailure as failure:
            if isinstance(failure.__cause__, OSError) and failure.__cause__.errno == errno.EINVAL:
                return
            raise


@dataclass(slots=True)
class VolumeUsers:
    """The containers of one spawner that have volumes."""

    images_fd: int
    _users: set[str]

    def took(self, container_id: str) -> None:
        """One is to have some."""
        self._users.add(container_id)

    def has_some(self, container_id: str) -> bool:
        """They are to be dropped when it is gone."""
        return container_id in self._users

    def dropped(self, container_id: str) -> None:
        """They are."""
        self._users.discard(container_id)

    def release(self, container_id: str) -> None:
        """Drop what it has if that was not done. Blocks."""
        if container_id in self._users:
            in_namespace(self.images_fd, lambda: drop_versions(self.images_fd, container_id))
            self._users.discard(container_id)
