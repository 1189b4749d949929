"""The executor of containers under gVisor: asks runsc, and finds out from outside what it has come to."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from squall.runtime import syscalls as sc
from squall.runtime.aside import run_aside
from squall.runtime.container import Entry, Outcome, Reply, status_from_wait
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.execute import carry_out
from squall.runtime.gvisor import bundle, snapshot
from squall.runtime.gvisor.plan import Places as SnapshotPlaces
from squall.runtime.gvisor.plan import plan_exec, plan_kill, plan_save, plan_signal, plan_start
from squall.runtime.gvisor.program import find_runsc
from squall.runtime.gvisor.slot import note_slot
from squall.runtime.launch import JOINED_NAMESPACES, LaunchKit, context_of
from squall.runtime.operations import Phase
from squall.runtime.places import Place, Places
from squall.runtime.poll import Poller
from squall.runtime.programs import find_init
from squall.runtime.spec import ContainerSpec, ExecSpec, ExitStatus, Limits

FAILED_CODE, PANIC_CODE = 128, 2
"""What runsc ends with when it has failed, or the sandbox has; a program may as well."""
OWN_MEMORY_BYTES = 32 * 2**20
"""What an idle sandbox and its helpers take, and then some: 18 MiB measured."""
OWN_THREADS = 64
"""Likewise: 41 measured. What passes the limit ends the container, as the sandbox cannot do without threads."""
ERROR_BYTES_MAX = 4_096
_ENDS_S = 0.5
"""How long a process that is killed takes to end, at most, as a rule."""


class GvisorExecutor:
    """runsc, and in it tini and the program."""

    def __init__(self, kit: LaunchKit, poller: Poller) -> None:
        self._kit = kit
        self._poller = poller
        self._error_fds: dict[str, int] = {}
        self.places = Places(kit.images_fd)
        self.restored_from: dict[str, str] = {}
        """Of containers that are to be restored, their templates."""

    def plan_start(
        self, spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str]
    ) -> list[Phase]:
        """As `gvisor.plan` says.

        Raises:
            FeatureMissing: there is no runsc that will do.
        """
        programs = {"runsc": find_runsc(), "init": find_init()}
        if spec.is_template:
            # As much as it may have in memory: it is what it has there.
            self.places.make(snapshot.image_of(spec.container_id), self.limits(spec).memory_bytes)
            self.make_shared(spec)
            spec = snapshot.with_directory(spec)
        note_slot(spec)
        error_fd = self._error_fds[spec.container_id] = os.memfd_create("runsc-errors", os.MFD_CLOEXEC)
        return plan_start(
            spec, tasks_paths, image_points,
            programs=programs, error_fd=error_fd, places=self._places_of(spec.container_id),
        )  # fmt: skip

    def make_shared(self, spec: ContainerSpec) -> Place:
        """The directory that a template, or a container that is to be restored, is to see.

        Raises:
            RuntimeFailure: the kernel does not make it.
        """
        owner = spec.id_range.start + spec.user[0], spec.id_range.start + spec.user[1]
        return self.places.make(snapshot.shared_of(spec.container_id), snapshot.SHARED_BYTES_MAX, owner)

    def _places_of(self, container_id: str) -> SnapshotPlaces:
        image = self.places.find(snapshot.image_of(self.restored_from.get(container_id, container_id)))
        shared = self.places.find(snapshot.shared_of(container_id))
        return SnapshotPlaces(image.point if image else "", shared.point if shared else "")

    def limits(self, spec: ContainerSpec) -> Limits:
        """With room for runsc, sandbox and gofer."""
        memory_bytes, pids_max = spec.limits.memory_bytes, spec.limits.pids_max
        return replace(
            spec.limits,
            memory_bytes=memory_bytes and memory_bytes + OWN_MEMORY_BYTES,
            pids_max=pids_max and pids_max + OWN_THREADS,
        )

    def plan_exec(self, spec: ExecSpec, container: ContainerSpec, name: str) -> list[Phase]:
        """As `gvisor.plan` says."""
        return plan_exec(spec, container, name)

    def exec_ended(self, entry: Entry, name: str, status: int) -> None:
        """End the program where runsc was killed, which passes on all other signals, but not that one."""
        path = f"/proc/{entry.forked.pid}/root{bundle.exec_pid_path(name)}"
        try:
            with open(path, encoding="ascii") as file:
                pid = int(file.read())
            os.unlink(path)
        except (OSError, ValueError):
            return  # the sandbox has ended, or runsc had not got so far
        if os.WIFSIGNALED(status) and entry.exit_status is None:
            what = f"end process {pid} in container {entry.spec.container_id}"
            run_aside(self._poller, partial(_order, self._kit, entry, plan_kill(pid), what), lambda _: None)

    def is_up(self, entry: Entry) -> bool:
        """By runsc's own record, which says `running` once the program has been loaded. One that is restored is up when
        it has taken its identity."""
        if not self._is_told(entry):
            return False
        try:
            with open(f"/proc/{entry.forked.pid}/root{bundle.STATE}", encoding="utf-8") as file:
                return bool(json.load(file)["status"] == "running")
        except (OSError, ValueError, KeyError):
            return False

    def _is_told(self, entry: Entry) -> bool:
        """Whether it is who it is to be; one that begins by itself is."""
        shared = self.places.find(snapshot.shared_of(entry.spec.container_id)) if entry.spec.template_id else None
        return shared is None or snapshot.is_told(shared.path)

    def start_failure(self, entry: Entry, status: int) -> RuntimeFailure | None:
        """What runsc said, if it failed; of one that was restored, that it has never become somebody."""
        error = self._error(entry.spec.container_id)
        if os.WIFSIGNALED(status) or (_is_failure(status) and error):
            reason = error or "runsc was killed (a memory or process limit too small for the start itself?)"
            return RuntimeFailure(f"cannot start container {entry.spec.container_id} under gVisor: {reason}")
        if not self._is_told(entry):
            # Its exit code is nobody's: the container that was asked for has not begun.
            ending = f"exit code {os.waitstatus_to_exitcode(status)}"
            return TemplateUnfit(f"restored, it ended before it had taken its identity ({ending})")
        return None

    def exit_status(self, entry: Entry, status: int) -> ExitStatus:
        """As tini and runsc say it. A sandbox that is gone reads as killed, whoever it was."""
        is_oom = entry.is_oom
        if _is_failure(status) and (is_oom or self._error(entry.spec.container_id)):
            return ExitStatus(code=None, signal=int(signal.SIGKILL), is_oom=is_oom)
        return status_from_wait(status, is_oom=is_oom)

    def exec_status(self, status: int) -> ExitStatus:
        """runsc tells a program's signal as 128 + signal."""
        return status_from_wait(status, is_oom=False)

    def signal(self, entry: Entry, number: int, answer: Outcome) -> None:
        """By `runsc kill`, some 20 ms; tini in the container passes it on to the program's process group."""

        def answered(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, Reply) or entry.exit_status is not None:
                answer(Reply())
                return
            # It may be ending: then it cannot be entered any more, some time before it has ended.
            self._poller.call_later(_ENDS_S, lambda: answer(Reply() if entry.exit_status is not None else outcome))

        if entry.exit_status is not None:
            answer(Reply())
            return
        what = f"send signal {number} to container {entry.spec.container_id}"
        run_aside(self._poller, partial(_order, self._kit, entry, plan_signal(number), what), answered)

    def save(self, entry: Entry, answer: Outcome) -> None:
        """Save a template, whose processes end then; the answer comes when they have been told to end."""
        what = f"save template {entry.spec.container_id}"
        limits = self.limits(entry.spec)
        if limits.memory_bytes:
            # What is saved is written by the sandbox, and counts beside what it has in memory until it ends.
            entry.cgroup.set_limits(replace(limits, memory_bytes=2 * limits.memory_bytes))
        run_aside(self._poller, partial(_order, self._kit, entry, plan_save(), what), answer)

    def forget(self, container_id: str) -> None:
        """What runsc said is not kept."""
        self.restored_from.pop(container_id, None)
        for name in (snapshot.image_of(container_id), snapshot.shared_of(container_id)):
            self.places.drop(name)
        error_fd = self._error_fds.pop(container_id, -1)
        if error_fd >= 0:
            os.close(error_fd)

    def _error(self, container_id: str) -> str:
        error_fd = self._error_fds.get(container_id, -1)
        if error_fd < 0:
            return ""
        text = os.pread(error_fd, ERROR_BYTES_MAX, 0).decode(errors="replace").strip()
        try:
            return str(json.loads(text.partition("\n")[0])["msg"])
        except (ValueError, KeyError, TypeError):
            return text


def _is_failure(status: int) -> bool:
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) in (FAILED_CODE, PANIC_CODE)


def _order(kit: LaunchKit, entry: Entry, phases: Sequence[Phase], what: str) -> None:
    """Have runsc do something with a container, from among its namespaces, and wait until it is done."""
    sc.setns(entry.forked.pidfd, JOINED_NAMESPACES, "the container's namespaces")
    said, says = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(says, 2)
        unheard, _ = socket.socketpair()
        carry_out(phases, context_of(kit, entry.spec.id_range, -1, unheard), lambda _: None)
    os.close(says)
    with open(said, encoding="utf-8", errors="replace") as file:
        text = file.read(ERROR_BYTES_MAX)
    _, status = os.waitpid(child, 0)
    # What ends the container, as saving it does, may end runsc before it has said so.
    if status not in (0, signal.SIGKILL):
        raise RuntimeFailure(f"cannot {what}: {text.strip()}")
