"""When a snapshot is not restored, without runsc."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from squall.runtime import codec
from squall.runtime.container import Entry, Outcome, Reply
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.gvisor import snapshot, snapshots
from squall.runtime.gvisor.executor import GvisorExecutor
from squall.runtime.gvisor.snapshots import Hands, Snapshot, Snapshots
from squall.runtime.launch import LaunchKit
from squall.runtime.poll import Poller
from squall.runtime.spec import ExitStatus, IdRange
from tests.runtime.test_gvisor import SPEC

TEMPLATE = replace(SPEC, container_id="tp-1", is_template=True)
READY = TemplateReport(is_ready=True)


def never(*_: object) -> Any:
    raise AssertionError("nothing is to be done")


def known(monkeypatch: pytest.MonkeyPatch, report: TemplateReport | None, release: str = "20240729") -> Snapshots:
    """Snapshots of one template, saved by a runsc of 20240729."""
    poller = Poller()
    made = Snapshots(
        GvisorExecutor(LaunchKit(-1, -1, -1, b"", b"", 40), poller), poller, Hands(never, never, never, never)
    )
    entry = cast(Entry, type("Template", (), {"spec": TEMPLATE})())
    made._known["tp-1"] = Snapshot(entry, report=report, saved_by="20240729")
    monkeypatch.setattr(snapshots, "identity_of_runsc", lambda: release)
    return made


@pytest.mark.parametrize(
    ("report", "release", "fields", "cause"),
    [
        (READY, "20240729", {"template_id": "tp-2"}, "it has ended"),
        (None, "20240729", {}, "it is not ready"),
        (TemplateReport(is_ready=False), "20240729", {}, "it is not ready"),
        (READY, "20240729", {"id_range": IdRange(200_000)}, "somebody else's"),
        (READY, "20240729", {"user": (1000, 1000)}, "somebody else's"),
        (READY, "20260101", {}, "another runsc was installed since it was saved"),
    ],
)
def test_what_cannot_be_restored_is_refused_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, report: TemplateReport | None, release: str, fields: dict[str, Any], cause: str
) -> None:
    spec = replace(SPEC, **{"template_id": "tp-1", **fields})

    with pytest.raises(TemplateUnfit, match=cause):
        known(monkeypatch, report, release).restore(spec, never)


@pytest.mark.parametrize("is_left", [False, True])
def test_what_is_told_of_a_check_while_it_is_removed_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_left: bool
) -> None:
    """It has come to itself. Then its time is over, and its template's container ends."""
    made = known(monkeypatch, None)
    template = made._known["tp-1"]
    template.said = READY
    template.entry = cast(Entry, SimpleNamespace(spec=replace(TEMPLATE, state_dir=str(tmp_path))))
    made._checks["tp-1-check"] = template
    removals: list[Outcome] = []
    made._hands = Hands(never, never, never, lambda _, answer: removals.append(answer))
    monkeypatch.setattr(made, "_image_bytes", lambda _: 5)
    answers: list[Reply | RuntimeFailure] = []
    made.report("tp-1", answers.append)
    left: list[str] = []

    made.check_ended("tp-1-check", ExitStatus(0, None))
    made._end_check(template, "tp-1-check", "restored, it had not come to itself after 30 s")
    if is_left:
        made.outlives("tp-1", lambda: left.append("removed"))
    assert len(removals) == 1
    removals[0](Reply())

    (answer,) = answers
    assert isinstance(answer, Reply)
    assert codec.template_report(answer.values) == replace(READY, memory_bytes=5)
    assert left == ["removed"] * is_left


def test_one_that_is_removed_while_its_files_are_copied_does_not_begin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = known(monkeypatch, READY)
    template = replace(TEMPLATE, state_dir=str(tmp_path / "tp-1"))
    made._known["tp-1"].entry = cast(Entry, SimpleNamespace(spec=template))
    (tmp_path / "tp-1/rw/upper").mkdir(parents=True)
    monkeypatch.setattr(made._executor, "make_shared", lambda _: SimpleNamespace(path=str(tmp_path)))
    spec = replace(SPEC, template_id="tp-1", state_dir=str(tmp_path / "ct-1"))
    answers: list[Reply | RuntimeFailure] = []

    def stop(_: object = None) -> None:
        made._poller.is_stopped = True

    made.restore(spec, answers.append)
    assert made.pending_ids() == ["ct-1"]
    made.give_up("ct-1", answers.append)
    made.give_up("ct-1", stop)
    assert not answers, "somebody works on its directory"
    made._poller.call_later(10, stop)
    made._poller.run()

    failure, removed = answers
    assert isinstance(failure, RuntimeFailure)
    assert "it was removed before it began" in failure.message
    assert removed == Reply()
    assert made.pending_ids() == []


@pytest.mark.parametrize("cut", snapshot.IMAGE_FILES)
def test_file_that_is_missing_or_empty_is_named(tmp_path: Path, cut: str) -> None:
    for name in snapshot.IMAGE_FILES:
        (tmp_path / name).write_bytes(b"x")
    assert snapshot.image_bytes(str(tmp_path)) == 3

    (tmp_path / cut).write_bytes(b"")

    with pytest.raises(RuntimeFailure, match=rf"{cut} is empty or missing; is the memory full"):
        snapshot.image_bytes(str(tmp_path))
