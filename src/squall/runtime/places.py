"""Directories in memory that no path leads to: what is in them is on no disk, and ends with the spawner at the latest.

Each is a file system of its own, of bounded size, and counts with the memory of whoever writes into it. It is attached
in the namespace of the images of layers (`layer_mounts`), from where a container's first process takes a copy of the
mount.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure
from squall.runtime.layer_mounts import attach, detach

FILES_MAX = 64
"""In one, directories and further names of the same file included: some five are needed, and who empties it has others
to look after."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of them."""

    point: str
    """Where it is in the namespace of images."""
    fd: int

    @property
    def path(self) -> str:
        """It, for the process that has made it, and for its forks."""
        return f"/proc/self/fd/{self.fd}"


class Places:
    """Those of one spawner, by name."""

    def __init__(self, images_fd: int) -> None:
        self._images_fd = images_fd
        self._made: dict[str, Place] = {}
        self._left: list[str] = []
        """Points of those that were let go and could not be detached."""
        self._count = 0

    def make(self, name: str, size_bytes: int | None, owner: tuple[int, int] = (0, 0)) -> Place:
        """An empty one, in place of what has this name.

        Args:
            size_bytes: at most; None is half of the machine's memory.

        Raises:
            RuntimeFailure: the kernel does not make it.
        """
        self.drop(name)
        options = {"mode": "700", "uid": str(owner[0]), "gid": str(owner[1]), "nr_inodes": str(FILES_MAX)}
        if size_bytes is not None:
            options["size"] = str(size_bytes)
        attributes = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
        fd = sc.make_mount("squall", "tmpfs", attributes, options, is_read_only=False)
        self._count += 1
        place = Place(f"/place-{self._count}", fd)
        try:
            attach(self._images_fd, {place.point: fd})
        except BaseException:
            os.close(fd)
            raise
        self._made[name] = place
        return place

    def find(self, name: str) -> Place | None:
        """The one of this name."""
        return self._made.get(name)

    def empty(self, name: str) -> None:
        """Delete the files in it: who has a copy of the mount would keep their memory. Absent is no error."""
        place = self._made.get(name)
        if place is not None:
            for folder, _, files in os.walk(place.path):
                for file in files:
                    os.unlink(f"{folder}/{file}")

    def drop(self, name: str) -> None:
        """Let it go, with what is in it. Idempotent. Where no descriptor is left to do it by, a later one does it."""
        with contextlib.suppress(OSError):
            self.empty(name)
        place = self._made.pop(name, None)
        if place is not None:
            os.close(place.fd)
            self._left.append(place.point)
        while self._left:
            try:
                detach(self._images_fd, self._left[-1:])
            except (OSError, RuntimeFailure):
                return
            self._left.pop()
