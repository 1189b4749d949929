"""Templates under gVisor: saved once they are ready, and restored as often as containers are to begin from them.

    loading ──▶ saving ──▶ checking ──▶ ready
       └──────────┴───────────┴───────▶ unfit

A template's processes end when they are saved; for everybody else it is there until it is killed or removed. What was
saved is checked once: it is restored, without a network, and has to come to itself. Nothing here waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from squall.runtime import codec
from squall.runtime.aside import run_aside
from squall.runtime.container import Entry, Outcome, Reply
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit, as_failure
from squall.runtime.gvisor import bundle, snapshot
from squall.runtime.gvisor.executor import GvisorExecutor
from squall.runtime.gvisor.program import identity_of_runsc
from squall.runtime.poll import Poller
from squall.runtime.removal import remove_tree
from squall.runtime.spec import ContainerSpec, ExitStatus
from squall.runtime.templates import read_template_report

LOOK_S = 0.01
SAVED_S = 10.0
"""How long one that is saved may take to end."""
CHECK_S = 30.0
"""How long one that is checked may take to come to itself."""
_CHECK = "-check"


@dataclass(slots=True)
class Snapshot:
    """One template."""

    entry: Entry
    waiters: list[Outcome] = field(default_factory=list)
    report: TemplateReport | None = None
    said: TemplateReport | None = None
    """What it has said itself, until it is saved and checked."""
    saved_by: object = None
    """The runsc that has saved it: another one may not read it."""
    is_saving: bool = False
    has_ended: bool = False
    """Its processes have, since it was to be saved."""
    has_check_ended: bool = False
    """What comes of its check is known, and the check's container is being removed."""
    after_check: list[Callable[[], None]] = field(default_factory=list)
    """What waits for the end of its check."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What the registry does for us."""

    launch: Callable[[ContainerSpec, Outcome], None]
    kill: Callable[[Entry], None]
    end: Callable[[Entry], None]
    """Let one end whose processes have ended."""
    remove: Callable[[str, Outcome], None]


class Snapshots:
    """The templates of this spawner that are saved, by the id of their container."""

    def __init__(self, executor: GvisorExecutor, poller: Poller, hands: Hands) -> None:
        self._executor = executor
        self._poller = poller
        self._hands = hands
        self._known: dict[str, Snapshot] = {}
        self._checks: dict[str, Snapshot] = {}
        self._pending: dict[str, list[Outcome]] = {}
        """Containers whose files are being copied, with who waits for their removal: they do not begin then."""

    def begin(self, entry: Entry) -> None:
        """A template's program has been executed."""
        made = self._known[entry.spec.container_id] = Snapshot(entry)
        self._look(made)

    def report(self, container_id: str, answer: Outcome) -> None:
        """The answer comes when a template is ready or unfit.

        Raises:
            ContainerMissing: unknown, or it has ended.
        """
        known = self._known.get(container_id)
        if known is None:
            raise ContainerMissing(f"no template {container_id}, or it has ended")
        if known.report is not None:
            answer(Reply(codec.to_json(known.report)))
        else:
            known.waiters.append(answer)

    def knows(self, container_id: str) -> bool:
        """Whether it is one of these templates."""
        return container_id in self._known

    def is_check(self, container_id: str) -> bool:
        """Whether a container is only to show that a snapshot is good: it is nobody else's business."""
        return container_id in self._checks

    def pending_ids(self) -> list[str]:
        """Containers that are about to begin, and are no containers of the spawner's yet."""
        return list(self._pending)

    def is_pending(self, container_id: str) -> bool:
        """Whether a container is about to begin."""
        return container_id in self._pending

    def give_up(self, container_id: str, answer: Outcome) -> None:
        """Let a container that is about to begin not begin; the answer comes when its directory is nobody's."""
        self._pending[container_id].append(answer)

    def restore(self, spec: ContainerSpec, answer: Outcome) -> None:
        """Begin a container from a template's snapshot.

        Raises:
            TemplateUnfit: there is none.
        """
        known = self._known.get(spec.template_id)
        problem = ""
        if known is None:
            problem = "it has ended"
        elif known.report is None or not known.report.is_ready:
            problem = "it is not ready"
        elif (known.entry.spec.id_range, known.entry.spec.user) != (spec.id_range, spec.user):
            problem = "it is somebody else's"
        elif known.saved_by != identity_of_runsc():
            problem = "another runsc was installed since it was saved"
        if problem or known is None:
            raise TemplateUnfit(f"cannot restore template {spec.template_id}: {problem}")
        self._restore(known, spec, answer, is_check=False)

    def takes_end(self, entry: Entry) -> bool:
        """Whether the end of a template's processes is none of the template: it is being saved."""
        known = self._known.get(entry.spec.container_id)
        if known is None or not known.is_saving:
            return False
        known.has_ended = entry.is_saved = True
        return True

    def outlives(self, container_id: str, then: Callable[[], None]) -> bool:
        """Whether a check of this template lives, which uses its directory and its ids: it is ended, and then `then` is
        called, once. Nothing is where there is none.
        """
        for check_id, known in self._checks.items():
            if known.entry.spec.container_id == container_id:
                known.after_check.append(then)
                # One that is about to start finds that its template is gone.
                if check_id not in self._pending:
                    self._end_check(known, check_id, "its template has ended")
                return True
        return False

    def forget(self, container_id: str) -> None:
        """A template has ended. Idempotent."""
        known = self._known.pop(container_id, None)
        if known is not None:
            self._tell(known, ContainerMissing(f"template {container_id} ended before it was ready"))

    # ---- loading, saving

    def _look(self, known: Snapshot) -> None:
        if self._known.get(known.entry.spec.container_id) is not known:
            return
        shared = self._executor.places.find(snapshot.shared_of(known.entry.spec.container_id))
        data = snapshot.read_report(shared.path) if shared is not None else b""
        if data is None:
            self._poller.call_later(LOOK_S, lambda: self._look(known))
            return
        known.said = read_template_report(data)
        if not known.said.is_ready:
            self._settle(known, known.said)
            return
        known.is_saving, known.saved_by = True, identity_of_runsc()
        try:
            self._executor.save(known.entry, partial(self._on_saved, known, round(SAVED_S / LOOK_S)))
        except (RuntimeFailure, OSError) as error:
            self._unfit(known, str(error))

    def _on_saved(self, known: Snapshot, looks: int, outcome: Reply | RuntimeFailure) -> None:
        if self._known.get(known.entry.spec.container_id) is not known:
            return
        if isinstance(outcome, RuntimeFailure):
            self._unfit(known, outcome.message)
        elif not known.has_ended and not looks:
            self._unfit(known, f"it had not ended {SAVED_S:g} s after it was saved")
        elif not known.has_ended:
            self._poller.call_later(LOOK_S, lambda: self._on_saved(known, looks - 1, outcome))
        else:
            self._check(known)

    # ---- checking

    def _check(self, known: Snapshot) -> None:
        template = known.entry.spec
        container_id = f"{template.container_id}{_CHECK}"
        state_dir = f"{template.state_dir}/check"
        try:
            self._image_bytes(known)
            remove_tree(state_dir)
            os.mkdir(state_dir, 0o700)
        except (OSError, RuntimeFailure) as error:
            self._unfit(known, str(error))
            return
        spec = replace(
            template, container_id=container_id, state_dir=state_dir, network=None, labels={}, is_template=False,
            template_id=template.container_id,
        )  # fmt: skip
        self._checks[container_id] = known

        def on_started(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                self._end_check(known, container_id, outcome.message)
            else:
                for descriptor in outcome.descriptors:
                    os.close(descriptor)
                self._poller.call_later(CHECK_S, give_up)

        def give_up() -> None:
            if self._checks.get(container_id) is known:
                self._end_check(known, container_id, f"restored, it had not come to itself after {CHECK_S:g} s")

        try:
            self._restore(known, spec, on_started, is_check=True)
        except (RuntimeFailure, OSError) as error:
            self._end_check(known, container_id, str(error))

    def check_ended(self, container_id: str, status: ExitStatus) -> None:
        """A container that was restored for its check has ended."""
        known = self._checks[container_id]
        ending = f"exit code {status.code}" if status.signal is None else f"signal {status.signal}"
        self._end_check(known, container_id, "" if status.code == 0 else f"restored, it ended at once ({ending})")

    def _end_check(self, known: Snapshot, container_id: str, problem: str) -> None:
        if known.has_check_ended:
            return  # what is told now, of its last moments or of its removal, says nothing of the snapshot
        known.has_check_ended = True

        def on_removed(outcome: Reply | RuntimeFailure) -> None:
            self._checks.pop(container_id, None)
            failed = outcome.message if isinstance(outcome, RuntimeFailure) else problem
            try:
                remove_tree(f"{known.entry.spec.state_dir}/check")
                size = self._image_bytes(known)
            except RuntimeFailure as failure:
                failed = failed or failure.message
            waiting, known.after_check = known.after_check, []
            for then in waiting:
                then()
            if self._known.get(known.entry.spec.container_id) is not known:
                return
            if failed:
                self._unfit(known, failed)
            else:
                assert known.said is not None, "it was saved because it said it was ready"
                self._settle(known, replace(known.said, memory_bytes=size))

        self._hands.remove(container_id, on_removed)

    def _image_bytes(self, known: Snapshot) -> int:
        image = self._executor.places.find(snapshot.image_of(known.entry.spec.container_id))
        if image is None:
            raise RuntimeFailure("cannot use the snapshot: it is gone")
        return snapshot.image_bytes(image.path)

    # ---- settling

    def _unfit(self, known: Snapshot, cause: str) -> None:
        """Its snapshot is no good, and is dropped; the template ends."""
        self._settle(known, TemplateReport(is_ready=False, cause=cause, has_failed=True))
        known.is_saving = False
        self._executor.places.empty(snapshot.image_of(known.entry.spec.container_id))
        if known.has_ended:
            self._hands.end(known.entry)
        else:
            self._hands.kill(known.entry)

    def _settle(self, known: Snapshot, report: TemplateReport) -> None:
        known.report = report
        self._tell(known, Reply(codec.to_json(report)))

    @staticmethod
    def _tell(known: Snapshot, outcome: Reply | RuntimeFailure) -> None:
        waiters, known.waiters = known.waiters, []
        for answer in waiters:
            answer(outcome)

    # ---- restoring

    def _restore(self, known: Snapshot, spec: ContainerSpec, answer: Outcome, *, is_check: bool) -> None:
        template = known.entry.spec
        # The kernel in the snapshot has the template's name.
        spec = replace(spec, hostname=template.hostname, argv=template.argv)
        shared = self._executor.make_shared(spec)

        def make_ready() -> None:
            snapshot.copy_files(template, spec)
            snapshot.write_identity(shared.path, spec, bundle.environment(spec), is_check=is_check)

        def on_ready(outcome: Reply | RuntimeFailure) -> None:
            removals = self._pending.pop(spec.container_id)
            failure = outcome if isinstance(outcome, RuntimeFailure) else None
            if self._known.get(template.container_id) is not known:
                failure = TemplateUnfit("it has ended")
            if failure is not None:
                failure = TemplateUnfit(f"cannot restore template {template.container_id}: {failure.message}")
            if removals:
                failure = RuntimeFailure(f"cannot start container {spec.container_id}: it was removed before it began")
            if failure is not None:
                self._executor.forget(spec.container_id)
                answer(failure)
                for removed in removals:
                    removed(Reply())
                return
            try:
                self._hands.launch(snapshot.with_directory(spec), answer)
            except Exception as error:  # noqa: BLE001  whoever waits for it is to hear it
                self._executor.forget(spec.container_id)
                answer(as_failure(error))

        self._pending[spec.container_id] = []
        self._executor.restored_from[spec.container_id] = template.container_id
        try:
            run_aside(self._poller, make_ready, on_ready)
        except BaseException:
            del self._pending[spec.container_id]
            self._executor.forget(spec.container_id)
            raise
