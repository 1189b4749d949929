"""The runtime as its callers see it: the interface is the specification, also for the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from squall.runtime.spec import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, ExitStatus, IdRange, Volume

NAMESPACES_MAX = 32
"""Network namespaces that are made at once at most."""


@dataclass(frozen=True, slots=True)
class Started:
    """A container whose first process has been executed.

    The caller owns both descriptors (read ends of pipes, non-blocking). The spawner keeps copies, so output written
    while no agent lives is not lost: pipes fill up and the writer waits.
    """

    pid: int
    stdout_fd: int
    stderr_fd: int
    phase_ms: Mapping[str, float]
    """Duration of each phase of the start, in order."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """Of a fork of a template that is adopted, what it began with: its process was not started with these."""
    bucket_pids: Sequence[int] = ()
    """Of the programs that serve its buckets, in the order of these."""


@dataclass(frozen=True, slots=True)
class ExecStarted:
    """A process added to a container. The caller owns the descriptors, all non-blocking.

    With a pty all three are one number, the terminal's master: close it once.
    """

    exec_id: str
    pid: int
    stdin_fd: int
    stdout_fd: int
    stderr_fd: int


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What a template says of itself when it has gone as far as it can."""

    is_ready: bool
    """It can be forked."""
    cause: str = ""
    """Why not, in words for the user whose code it is."""
    has_failed: bool = False
    """Nothing in the code keeps it from being forked: something went wrong, which may not the next time."""
    memory_bytes: int = 0
    """What it holds by itself, resident."""
    import_ms: float = 0.0
    enter_ms: float = 0.0
    """How long its module and its hooks have taken."""


class Runtime(Protocol):
    """Makes, watches and removes containers. Safe to call from one event loop; every method may be retried."""

    async def start(self, spec: ContainerSpec) -> Started:
        """Start a container; returns once its first process has been executed, or a fork of its template has begun.

        Raises:
            RuntimeFailure: with the step, the object and the kernel's reason; nothing of the container is left then.
            ContainerExists: a container of this id is known already.
            TemplateUnfit: it was to be a fork, and cannot be one.
        """

    async def template_report(self, container_id: str) -> TemplateReport:
        """Wait until a template can be forked, or says why it cannot.

        Raises:
            ContainerMissing: unknown, or it has ended without a word.
        """

    async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
        """Save a template that is ready in an empty directory, for `ContainerSpec.restore_from`. It goes on meanwhile.

        Args:
            file_bytes_max: of each file of the process; its memory is one. What is saved is a copy that runs code of
                its user, and may have become larger than the template was. 0: whatever it takes. What it has written
                to its own files is not counted.

        Raises:
            TemplateUnfit: there is none that could be forked, or it cannot be saved; the directory is then of no use.
            FeatureMissing: this machine has no CRIU.
        """

    async def prepare(self, spec: ContainerSpec, *, is_parked: bool) -> None:
        """Make what a fork of `spec.template_id` is to live in; with `is_parked` also the fork itself, which waits
        there to be told who it is. Of one that is prepared without a fork, again with `is_parked`: adds the fork.

        One that ends while it waits is told by `exits`, as a container's end is, and is there until it is removed.

        Raises:
            RuntimeFailure, ContainerExists, TemplateUnfit: as `start`; nothing is left then.
            ContainerMissing: the fork was to be added to one that has ended meanwhile.
        """

    async def begin(self, container_id: str, env: Mapping[str, str], volumes: Sequence[Volume] = ()) -> Started:
        """Let a prepared container begin, with this environment; forks it first where that was not done ahead.

        Args:
            volumes: the versions of those that it was prepared with. It sees nothing of them before.

        Raises:
            TemplateUnfit: it cannot, and nothing of it is left.
            RuntimeFailure: a volume cannot be mounted, and nothing of it is left.
            ContainerMissing: unknown, or it ended while it waited.
        """

    async def make_network_namespaces(self, id_range: IdRange, uid: int, count: int) -> Sequence[int]:
        """Network namespaces, with nothing in them, that forks of templates of this range and user can enter.

        Returns their descriptors, which the caller owns; `NAMESPACES_MAX` at most.
        """

    async def kill(self, container_id: str, signal: int) -> None:
        """Send a signal to the first process; SIGKILL ends every process in the container. An ended one is no error.

        A template that is ended in another way lets those forked from it go on; its exit is told after the last of
        theirs.
        """

    async def exec(self, container_id: str, spec: ExecSpec) -> ExecStarted:
        """Run one more process inside.

        Raises:
            DescriptorsLost: it runs, and nobody has the other ends of its pipes or its terminal.
            ContainerMissing: unknown, or ended already.
            ProgramMissing, ProgramRefused: the container has no such program, or may not execute it.
        """

    async def wait_exec(self, exec_id: str) -> ExitStatus:
        """Wait for a process started by `exec`."""

    async def adopt(self, container_id: str) -> Started:
        """Fresh copies of the output descriptors of a container started by an earlier agent.

        Raises:
            ContainerMissing: unknown.
        """

    async def list(self) -> Sequence[ContainerStatus]:
        """Every container known to the spawner, ended ones included until they are removed."""

    async def usage(self, container_id: str) -> ContainerUsage:
        """Read the counters of a running or prepared container.

        Raises:
            ContainerMissing: unknown, or ended already.
        """

    async def freeze(self, container_id: str) -> None:
        """Stop every process of the container from running until `thaw`."""

    async def thaw(self, container_id: str) -> None:
        """Undo `freeze`."""

    async def swap_volume(self, container_id: str, volume: Volume) -> None:
        """Let another version take the place of the one of this name. To be called while it is frozen: nobody then
        sees the moment in between.

        Raises:
            VolumeBusy: a process has a file of it open or mapped, or is in it; nothing has changed then.
            ContainerMissing: unknown.
        """

    async def remove(self, container_id: str) -> None:
        """Kill what is left; remove mounts, cgroups, records. `state_dir` stays, no mount below it. Idempotent."""

    async def drop_removed_layers(self) -> None:
        """Let go of layers whose files were removed and that no container stands on: only then is their space free.

        Raises:
            RuntimeFailure: a spawner of an older version keeps them for as long as it runs.
        """

    def exits(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        """Exits as they happen, each once per agent; those that happened while no agent was there come first."""
