"""Templates: containers whose program waits to be forked.

Its first process only waits and reaps, and lives on when the program has ended, for as long as forks of it do: their
pid namespaces are below its own. The program is added to it as an exec is, so its exit comes to us.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from squall.runtime import codec
from squall.runtime.aside import run_aside
from squall.runtime.container import Entry, Outcome, Reply
from squall.runtime.contract import TemplateReport
from squall.runtime.criu.launch import saved_filter_count
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.execs import Execs
from squall.runtime.kept_files import keep_files
from squall.runtime.launch import MESSAGE_BYTES_MAX
from squall.runtime.poll import Poller
from squall.runtime.procfs import filter_count
from squall.runtime.spec import ContainerSpec
from squall.runtime.strays import end_rest, find_program
from squall.runtime.verification import restored_problem

CAUSE_LENGTH_MAX = 2_000
NUMBER_MAX = 2.0**50
"""Of what a template says; more is nobody's memory or time."""
FILES = "files"
"""In a template's directory: what it has written."""


@dataclass(slots=True)
class Template:
    """One template, from the moment its first process waits."""

    entry: Entry
    control: socket.socket
    pid: int = 0
    """Of its program; 0 before that is executed, and after it has ended."""
    filter_count: int = 1
    report: TemplateReport | None = None
    files: str = ""
    """What it has written, as a directory that stays as it is."""
    is_settling: bool = False
    """It has said that it is ready, and its files are being kept."""
    waiters: list[Outcome] = field(default_factory=list)
    """Who wants its report."""
    living: set[str] = field(default_factory=set)
    """Containers that are its forks, prepared ones too."""
    copies: set[int] = field(default_factory=set)
    """Children of its program that are being saved."""
    joined_at: float = 0.0
    """When a fork of it has joined, by the monotonic clock. It makes one at a time."""


class Templates:
    """The templates of this spawner, by the id of their container.

    Args:
        on_left: told when a template's program has ended and none of its forks lives: it is to be taken down.
    """

    def __init__(self, execs: Execs, poller: Poller, on_left: Callable[[Entry], None]) -> None:
        self._execs = execs
        self._poller = poller
        self._on_left = on_left
        self._templates: dict[str, Template] = {}
        self._last_words: dict[str, TemplateReport] = {}
        """Why templates that have ended were unfit: whoever asks may come later than their end."""

    def begin(self, entry: Entry, outputs: tuple[int, int], user_namespace_fd: int, answer: Outcome) -> None:
        """Execute the program of a template whose first process waits; the answer comes when that is done."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        template = Template(entry, ours)
        container_id = entry.spec.container_id
        self._templates[container_id] = template

        def on_executed(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                self.forget(container_id)
                answer(outcome)
                return
            template.pid = entry.program_pid = outcome.values["pid"]
            if entry.spec.restore_from:
                count = saved_filter_count(entry.spec.restore_from)
                if problem := restored_problem(template.pid, entry.forked.pid, count):
                    os.kill(template.pid, signal.SIGKILL)
                    answer(TemplateUnfit(f"cannot bring a template back: {problem}"))
                    return
            self._execs.wait(outcome.values["exec_id"], lambda ended: self._on_ended(template, ended))
            answer(outcome)

        try:
            if entry.spec.restore_from:
                self._execs.restore_template(entry, outputs, theirs, on_executed)
            else:
                self._execs.start_template(entry, outputs, theirs, user_namespace_fd, on_executed)
        except BaseException:
            self.forget(container_id)
            raise
        finally:
            theirs.close()
        self._poller.watch(ours.fileno(), lambda _: self._on_message(template))

    def report(self, container_id: str, answer: Outcome) -> None:
        """The answer comes when the template has said how far it has come."""
        template = self._templates.get(container_id)
        if container_id in self._last_words:
            answer(Reply(codec.to_json(self._last_words[container_id])))
            return
        if template is None:
            raise ContainerMissing(f"no template {container_id}, or it has ended")
        if template.report is not None and (template.pid or not template.report.is_ready):
            answer(Reply(codec.to_json(template.report)))
        elif template.report is not None or not _is_open(template):
            raise ContainerMissing(f"template {container_id} has ended")
        else:
            template.waiters.append(answer)

    def of(self, spec: ContainerSpec) -> Template:
        """The template that a container is to be a fork of.

        Raises:
            TemplateUnfit: there is none that can be forked.
        """
        template = self._templates.get(spec.template_id)
        problem = ""
        if template is None or not _is_open(template):
            problem = "it has ended"
        elif template.report is None or not template.report.is_ready or not template.pid:
            problem = "it is not ready"
        elif (template.entry.spec.id_range, template.entry.spec.user) != (spec.id_range, spec.user):
            problem = "it is somebody else's"
        if problem or template is None:
            raise TemplateUnfit(f"cannot fork template {spec.template_id}: {problem}")
        return template

    def ready(self, container_id: str) -> Template | None:
        """The template of that id, if it can be forked."""
        template = self._templates.get(container_id)
        is_ready = template is not None and template.report is not None and template.report.is_ready and template.pid
        return template if is_ready else None

    def end(self, container_id: str) -> None:
        """End the program of a template, and let its forks live."""
        template = self._templates.get(container_id)
        if template is not None and template.pid:
            os.kill(template.pid, signal.SIGKILL)

    def lives(self, template_id: str, container_id: str) -> None:
        """A fork of a template is being made."""
        self._templates[template_id].living.add(container_id)

    def died(self, template_id: str, container_id: str) -> None:
        """Nothing of a fork is left, or nothing was made."""
        template = self._templates.get(template_id)
        if template is not None:
            template.living.discard(container_id)
            self._check_left(template)

    def forget(self, container_id: str) -> None:
        """A template's container has ended. Idempotent."""
        template = self._templates.pop(container_id, None)
        if template is not None:
            self._hang_up(template)
            if template.report is not None and not template.report.is_ready:
                self._last_words[container_id] = template.report

    def removed(self, container_id: str) -> None:
        """Nothing of a template is left. Idempotent."""
        self._last_words.pop(container_id, None)

    def _on_message(self, template: Template) -> None:
        try:
            data = template.control.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up(template)
            return
        if template.report is None and not template.is_settling:
            report = read_template_report(data)
            if template.pid:
                try:
                    template.filter_count = filter_count(template.pid)
                    if report.is_ready and (name := find_program(template.entry.forked.pid, template.pid)):
                        report = TemplateReport(is_ready=False, cause=f"the program {name!r} is running beside it")
                except (FileNotFoundError, ProcessLookupError):
                    pass  # its end is being told
            self._settle(template, report)
            # All that is to be heard from now on is that it has gone: it may say what it likes.
            if _is_open(template):
                self._poller.watch(template.control.fileno(), lambda _: self._hang_up(template), select.EPOLLHUP)

    def _settle(self, template: Template, report: TemplateReport) -> None:
        """Keep what it has written, for its forks, and tell what it said."""
        if not report.is_ready:
            template.report = report
            self._tell(template)
            return
        template.is_settling = True
        state_dir = template.entry.spec.state_dir
        files = f"{state_dir}/{FILES}"

        def on_kept(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                cgroup.thaw()  # whoever was to do it may have been killed
                has_failed = not isinstance(outcome, TemplateUnfit)
                template.report = TemplateReport(is_ready=False, cause=outcome.message, has_failed=has_failed)
            else:
                template.files, template.report = files, report
            self._tell(template)

        cgroup, first_pid = template.entry.cgroup, template.entry.forked.pid
        run_aside(self._poller, lambda: keep_files(first_pid, cgroup, f"{state_dir}/rw/upper", files), on_kept)

    def _hang_up(self, template: Template) -> None:
        if _is_open(template):
            self._poller.unwatch(template.control.fileno())
            template.control.close()
            self._tell(template)

    def _tell(self, template: Template) -> None:
        waiters, template.waiters = template.waiters, []
        for answer in waiters:
            if template.report is not None:
                answer(Reply(codec.to_json(template.report)))
            else:
                answer(ContainerMissing(f"template {template.entry.spec.container_id} ended before it was ready"))

    def _on_ended(self, template: Template, ended: Reply | RuntimeFailure) -> None:
        if isinstance(ended, Reply):
            template.entry.program_status = ended.values
        template.pid = 0
        end_rest(self._poller, template.entry.cgroup, template.entry.forked.pid)
        while _is_open(template) and _is_readable(template.control):
            # What it said last is still there.
            self._on_message(template)
        self._hang_up(template)
        self._check_left(template)

    def _check_left(self, template: Template) -> None:
        if not template.pid and not _is_open(template) and not template.living:
            self._on_left(template.entry)


def _is_open(template: Template) -> bool:
    return template.control.fileno() >= 0


def _is_readable(channel: socket.socket) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(0))


def read_template_report(data: bytes) -> TemplateReport:
    """What a template says, which user code may have written."""
    try:
        message: Any = json.loads(data)
        if isinstance(message, dict) and isinstance(message.get("ready"), dict):
            memory_bytes, import_ms, enter_ms = (
                _number(message["ready"].get(name)) for name in ("memory_bytes", "import_ms", "enter_ms")
            )
            return TemplateReport(is_ready=True, memory_bytes=int(memory_bytes), import_ms=import_ms, enter_ms=enter_ms)
        if isinstance(message, dict) and ("unfit" in message or "failed" in message):
            has_failed = "unfit" not in message
            cause = str(message["failed"] if has_failed else message["unfit"])
            return TemplateReport(is_ready=False, cause=cause[:CAUSE_LENGTH_MAX], has_failed=has_failed)
    except (ValueError, RecursionError):
        pass
    return TemplateReport(is_ready=False, cause="it does not speak as a template does")


def _number(said: object) -> float:
    """0 for what is none: it goes into sums, and to a server that takes no others."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= NUMBER_MAX:
        return 0.0
    return float(said)
