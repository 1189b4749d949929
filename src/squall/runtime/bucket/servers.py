"""The programs that serve buckets: begun before their container, watched while it runs, ended after it.

Nothing here waits, as in the registry. What a program is asked may take as long as its store: only processes of their
own, and the container, ask it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from squall.runtime import syscalls as sc
from squall.runtime.aside import run_aside
from squall.runtime.bucket.plan import directory_of, in_words, plan_server
from squall.runtime.bucket.program import cause_of, cgroup_name, find_s3fs
from squall.runtime.cgroup import Cgroup, CgroupTree
from squall.runtime.clones import kill_process
from squall.runtime.container import DEVICES, CgroupEntry, Done, Outcome, Reply, close_descriptors, receive
from squall.runtime.errors import ContainerMissing, FeatureMissing, RuntimeFailure, as_failure
from squall.runtime.id_ranges import UserNamespaces
from squall.runtime.launch import Forked, LaunchKit, fork_first
from squall.runtime.poll import Poller
from squall.runtime.records import check_name
from squall.runtime.spec import NAMESPACES, Bucket, ContainerSpec, Limits
from squall.runtime.wire import failure_from_json

START_S = 40.0
"""For a store to answer at first."""
LAST_S = 20.0
"""For what a container that is killed has written and not closed: it is sent while its processes end."""
MEMORY_BYTES, PIDS_MAX = 512 * 2**20, 256
OUTPUT_BYTES_MAX = 16_384
_READ_BYTES = 4_096


@dataclass(slots=True)
class _Server:
    bucket: Bucket
    forked: Forked
    output_fd: int
    mount_fds: list[int] = field(default_factory=list)
    output: bytes = b""
    has_executed: bool = False
    has_ended: bool = False
    failure: RuntimeFailure | None = None


@dataclass(slots=True)
class _Group:
    """Those of one container."""

    spec: ContainerSpec
    cgroup: Cgroup
    answer: Outcome | None
    """Who waits for them to be up."""
    servers: list[_Server] = field(default_factory=list)
    begin_ns: int = field(default_factory=time.monotonic_ns)
    is_up: bool = False
    failure: RuntimeFailure | None = None
    ends: list[Done] = field(default_factory=list)
    is_leaving: bool = False
    is_removing: bool = False


class BucketServers:
    """Those of all containers of a spawner.

    Args:
        tell: what the user of a container is to read, among what it has printed.
    """

    def __init__(
        self,
        instance: str,
        tree: CgroupTree,
        kit: LaunchKit,
        poller: Poller,
        user_namespaces: UserNamespaces,
        tell: Callable[[str, str], None],
    ) -> None:
        self._instance = instance
        self._tree = tree
        self._kit = kit
        self._poller = poller
        self._user_namespaces = user_namespaces
        self._tell = tell
        self._groups: dict[str, _Group] = {}

    def is_known(self, container_id: str) -> bool:
        """Whether a container has any, be they on their way up or down."""
        return container_id in self._groups

    def starting_ids(self) -> list[str]:
        """Containers that are not made yet since theirs are not up."""
        return [name for name, group in self._groups.items() if not group.is_up]

    def is_starting(self, container_id: str) -> bool:
        """Whether a container is one of those."""
        group = self._groups.get(container_id)
        return group is not None and not group.is_up

    # ---- start

    def start(self, spec: ContainerSpec, answer: Outcome) -> None:
        """Begin those of a container; the answer comes when all serve, with how long that took, or nothing of them is
        left.

        Raises:
            RuntimeFailure: what can be known at once; nothing was made then.
        """
        if spec.isolation != NAMESPACES:
            raise FeatureMissing(f"cannot start container {spec.container_id}: under gVisor there are no buckets yet")
        for bucket in spec.buckets:
            check_name("the name of a bucket's mount", bucket.name)
        program = find_s3fs()
        count = len(spec.buckets)
        limits = Limits(memory_bytes=MEMORY_BYTES * count, pids_max=PIDS_MAX * count)
        name = f"squall/{self._instance}/{cgroup_name(spec.container_id)}"
        group = _Group(spec, self._tree.create(name, limits, DEVICES), answer)
        self._groups[spec.container_id] = group
        self._user_namespaces.get(spec.id_range)
        self._user_namespaces.hold(cgroup_name(spec.container_id), spec.id_range)
        try:
            for bucket in spec.buckets:
                self._begin(group, bucket, program)
        except (RuntimeFailure, OSError) as error:
            self._fail(group, as_failure(error))
            return
        self._poller.call_later(START_S, lambda: self._is_late(group))

    def _begin(self, group: _Group, bucket: Bucket, program: str) -> None:
        spec = group.spec
        os.makedirs(directory_of(spec, bucket), mode=0o700)
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        try:
            with contextlib.closing(CgroupEntry.of(group.cgroup)) as entry:
                forked = fork_first(
                    self._kit, spec.id_range, self._user_namespaces.get(spec.id_range),
                    plan_server(spec, bucket, program, entry.tasks_paths), (write_end, write_end),
                    cgroup_fd=entry.unified_fd, has_own_network=spec.network is None,
                )  # fmt: skip
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        server = _Server(bucket, forked, read_end)
        group.servers.append(server)
        self._poller.watch(read_end, lambda _: self._on_output(server))
        self._poller.watch(forked.channel.fileno(), lambda _: self._on_message(group, server))
        self._poller.watch(forked.pidfd, lambda _: self._on_ended(group, server))

    def _on_output(self, server: _Server) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = os.read(server.output_fd, _READ_BYTES)
                if not data:
                    self._close_output(server)
                    return
                server.output = (server.output + data)[-OUTPUT_BYTES_MAX:]

    def _close_output(self, server: _Server) -> None:
        if server.output_fd >= 0:
            self._poller.unwatch(server.output_fd)
            os.close(server.output_fd)
            server.output_fd = -1

    def _on_message(self, group: _Group, server: _Server) -> None:
        channel = server.forked.channel
        message = receive(channel, server.mount_fds)
        if message is None:
            self._poller.unwatch(channel.fileno())
            channel.close()
            if server.has_executed and all(one.has_executed for one in group.servers):
                self._ask(group)
        elif "phase_ms" in message:
            server.has_executed = True
        elif "error" in message:
            server.failure = failure_from_json({"kind": message["kind"], "message": message["error"]})

    def _ask(self, group: _Group) -> None:
        """Whoever asks a program anything waits until it has spoken with its store."""
        if group.failure is not None or group.is_leaving:
            return
        user_namespace_fd = self._user_namespaces.get(group.spec.id_range)
        mounts = [server.mount_fds[0] for server in group.servers]

        def ask() -> None:
            sc.setns(user_namespace_fd, sc.CLONE_NEWUSER, "the container's user namespace")
            # Nobody whose ids have no name there is served.
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            for mount in mounts:
                os.fstatvfs(mount)

        def on_asked(outcome: Reply | RuntimeFailure) -> None:
            # One that could not reach its store has ended, or is about to: that says more than what was asked.
            if isinstance(outcome, RuntimeFailure):
                self._poller.call_later(0.2, lambda: self._fail(group, outcome))
            elif group.failure is None and group.answer is not None:
                group.is_up = True
                answer, group.answer = group.answer, None
                answer(Reply({"buckets": (time.monotonic_ns() - group.begin_ns) / 1e6}))

        run_aside(self._poller, ask, on_asked)

    def take(self, container_id: str) -> dict[str, int]:
        """The mounts of a container that is being made, by name; whoever takes them is to close them."""
        taken: dict[str, int] = {}
        for server in self._groups[container_id].servers if container_id in self._groups else ():
            taken[server.bucket.name] = server.mount_fds.pop()
        return taken

    def pids(self, container_id: str) -> list[int]:
        """Of those of a container, in the order of its buckets."""
        return [one.forked.pid for one in self._groups[container_id].servers] if container_id in self._groups else []

    def _is_late(self, group: _Group) -> None:
        if not group.is_up:
            self._fail(group, RuntimeFailure(f"the store does not answer within {START_S:g} s"))

    def _fail(self, group: _Group, failure: RuntimeFailure, server: _Server | None = None) -> None:
        """They are not to be up: the answer is a failure, when nothing of them is left."""
        if group.failure is not None or group.answer is None:
            return
        one = server or next((one for one in group.servers if one.has_ended), None)
        group.failure = failure
        if one is not None and one.failure is None and isinstance(failure, RuntimeFailure):
            words = f"cannot mount {in_words(one.bucket)}: {cause_of(one.output.decode(errors='replace'))}"
            group.failure = RuntimeFailure(words)
        told = group.failure
        if one is None:
            where = ", ".join(in_words(bucket) for bucket in group.spec.buckets)
            told = type(told)(f"cannot mount {where}: {told.message}")
        what = type(told)(f"cannot start container {group.spec.container_id}: {told.message}")
        answer, group.answer = group.answer, None
        self.end(group.spec.container_id, lambda _: answer(what))

    # ---- end

    def _on_ended(self, group: _Group, server: _Server) -> None:
        _, status = os.waitpid(server.forked.pid, 0)
        self._poller.unwatch(server.forked.pidfd)
        os.close(server.forked.pidfd)
        server.has_ended = True
        if server.output_fd >= 0:
            self._on_output(server)
            self._close_output(server)
        while server.forked.channel.fileno() >= 0:
            self._on_message(group, server)
        if not group.is_leaving and not group.is_up:
            self._fail(group, server.failure or RuntimeFailure("its program has ended"), server)
        elif not group.is_leaving and status:
            # Where its mount is gone with the container, it ends well.
            cause = cause_of(server.output.decode(errors="replace"))
            self._tell(
                group.spec.container_id,
                f"{in_words(server.bucket)} cannot be reached any more: what serves it has ended ({cause})",
            )
        self._leave(group)

    def hurry(self, container_id: str) -> None:
        """A container was killed: what it had open is sent while it ends, and that is not to take for ever."""
        group = self._groups.get(container_id)
        if group is not None:
            self._poller.call_later(LAST_S, lambda: self._give_up(group))

    def _give_up(self, group: _Group) -> None:
        if self._groups.get(group.spec.container_id) is group and not group.is_leaving:
            where = ", ".join(in_words(bucket) for bucket in group.spec.buckets)
            self._tell(
                group.spec.container_id,
                f"{where}: not all that was written is there: it was not sent within {LAST_S:g} s of the end",
            )
            self._kill(group)

    def end(self, container_id: str, done: Done) -> None:
        """End those of a container of which no process is left; called back when nothing of them is."""
        group = self._groups.get(container_id)
        if group is None:
            done(None)
            return
        group.ends.append(done)
        if group.answer is not None:
            # It is not wanted any more.
            answer, group.answer = group.answer, None
            group.ends.append(lambda _: answer(ContainerMissing(f"container {container_id} was removed")))
        group.is_leaving = True
        self._kill(group)
        self._leave(group)

    def _kill(self, group: _Group) -> None:
        for server in group.servers:
            if not server.has_ended:
                kill_process(server.forked.pidfd)
        group.cgroup.kill()

    def _leave(self, group: _Group) -> None:
        if not group.is_leaving or group.is_removing or not all(server.has_ended for server in group.servers):
            return
        group.is_removing = True
        for server in group.servers:
            close_descriptors(*server.mount_fds)
            server.mount_fds = []
        run_aside(self._poller, group.cgroup.remove, lambda outcome: self._left(group, outcome))

    def _left(self, group: _Group, outcome: Reply | RuntimeFailure) -> None:
        failure = outcome if isinstance(outcome, RuntimeFailure) else None
        group.is_removing = False
        if failure is None:
            self._user_namespaces.let_go(cgroup_name(group.spec.container_id))
            self._groups.pop(group.spec.container_id, None)
        ends: Sequence[Done] = group.ends
        group.ends = []
        for done in ends:
            done(failure)
