"""Failures of the runtime, in our words; errno is translated here and nowhere else.

RuntimeFailure            operation, object, cause, what to do
├── ContainerExists
├── ContainerMissing
├── DescriptorsLost       this process is at its limit of open files
├── ProgramMissing        shells say 127
├── ProgramRefused        shells say 126
├── SlotUnfit             a container's forks cannot enter the network that was made for them
├── SpawnerGone           it has died, or is not there yet
├── SubPathMissing        a version of a volume has not the directory that is to be mounted of it
├── TemplateUnfit         a container cannot be forked; it can be started plainly
│   └── JoinFailure       no fork of it is in the cell made for one; one may be elsewhere
├── VolumeBusy            processes have files of a volume open, or are in it
└── FeatureMissing        the kernel or the machine lacks something; names it and its fix
"""

from __future__ import annotations

import errno as os_errno
import os


class RuntimeFailure(Exception):
    """An operation on a container failed. The message names operation, object and cause."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ContainerExists(RuntimeFailure):
    """A container of this id is already known to the spawner."""


class ContainerMissing(RuntimeFailure):
    """No running container of this id."""


class DescriptorsLost(RuntimeFailure):
    """What came with an answer of the spawner was dropped on its way: this process can open no more files."""


class ProgramMissing(RuntimeFailure):
    """The container has no such program, or not the interpreter that it names."""


class ProgramRefused(RuntimeFailure):
    """There is such a file in the container, and it cannot be executed."""


class VolumeBusy(RuntimeFailure):
    """A process has a file of the volume open or mapped, or is in it: another version cannot take its place now."""


class SlotUnfit(RuntimeFailure):
    """A network slot does not belong to the user namespace of the forks of its range, or does not any more."""


class SpawnerGone(RuntimeFailure):
    """The spawner has died, and its containers with it, or is not there yet: who asks again may find the next one."""


class SubPathMissing(RuntimeFailure):
    """A version of a volume has not the directory that is to be mounted of it, and none can be made."""


class TemplateUnfit(RuntimeFailure):
    """The template is gone, is not ready, or its fork has not become the container it was to be: start it plainly."""


class JoinFailure(TemplateUnfit):
    """A fork was asked for, and none is in its cell: the template is at fault, or what it was to enter. Somebody may be
    left who was told the way, and be in the network of the cell."""


class FeatureMissing(RuntimeFailure):
    """This machine lacks a feature the runtime needs; the message says which and how to get it."""


def as_failure(error: Exception) -> RuntimeFailure:
    """Anything that was raised, to be told to whoever waits for an answer, or to be kept.

    Another one of its kind: its traceback would keep all that was at work then, and where nobody collects garbage, for
    ever.
    """
    if isinstance(error, RuntimeFailure):
        return type(error)(error.message)
    return RuntimeFailure(str(error) or type(error).__name__)


def describe_errno(operation: str, subject: str, number: int) -> str:
    """One line for a failed system call: `cannot mount overlay on /x: Invalid argument (EINVAL)`."""
    name = os_errno.errorcode.get(number, str(number))
    return f"cannot {operation} {subject}: {os.strerror(number)} ({name})"
