"""One cold start: what is asked of the server for it, and what is made of the answers."""

from __future__ import annotations

from typing import Any

import click
import pytest

from squall.cli import cold_start
from squall.cli.cold_start import (
    Subject,
    gone_of_others,
    measure,
    prepare,
    ready_of_others,
    settle,
    wait_for_template,
)
from squall.exception import ConflictError, NotFoundError
from squall.protocol.app import AppInfo, AppListing
from squall.protocol.container import IDLE, STOPPED, ContainerInfo
from squall.protocol.flight import (
    AttemptFlight,
    CallFlight,
    CallListing,
    CallSummary,
    ContainerFlight,
    InputFlight,
)
from squall.protocol.function import BY_FILE, Batching, Definition, FunctionBound, FunctionSpec, FunctionStats, Scaling
from squall.protocol.records import replace
from squall.protocol.template import DROPPED, MAKING, READY, NodeTemplate, SilentNode, TemplateInfo, TemplateListing

SUBJECT = Subject("fu-2", "ap-1", "hello", "", False, (), {})
SUMMARY = CallSummary("fc-1", "fu-2", "hello", "ap-1", "greeter", "remote", 0.0, "succeeded", 1)
INFO = ContainerInfo("ct-1", "ap-1", "greeter", "fu-2", "hello", "nd-1", IDLE, 0.0)
MARKS = {"placed": 1.0, "start.runtime": 2.0, "process": 3.0, "connected": 4.0, "ready": 5.0}


class Server:
    """One container, whose node tells how it started only after it has answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.container_count = 0
        self.looks_until_gone = 3
        self.template_states = [MAKING, MAKING, READY]
        self.parked_counts = [2]
        """As they are found one after the other; the last one stays."""
        self.looks_at_templates = 0
        self.looks_until_begun = 0

    def ask(self, method: str, record: Any, reply: Any) -> Any:
        self.asked.append((method, record))
        answers = {
            "FunctionBind": self.bound,
            "FunctionStats": self.stats,
            "CallList": self.calls,
            "CallShow": self.call,
            "ContainerShow": self.container,
            "ContainerStop": self.stopped,
        }
        return answers[method](record) if method in answers else None

    def ask_pages(self, method: str, record: Any, reply: Any) -> list[TemplateListing]:
        assert record.function_id == SUBJECT.function_id
        self.looks_at_templates += 1
        if self.looks_until_begun:
            self.looks_until_begun -= 1
            return [TemplateListing((), is_one_coming=True)]
        state = self.template_states.pop(0) if self.template_states else READY
        parked = self.parked_counts.pop(0) if len(self.parked_counts) > 1 else self.parked_counts[0]
        its = NodeTemplate("tp-1", "ap-1", "fu-2", "image", state, parked_count=parked)
        return [TemplateListing((TemplateInfo(its, "nd-1"),))]

    def bound(self, record: Any) -> FunctionBound:
        return FunctionBound("fu-2")

    def stats(self, record: Any) -> FunctionStats:
        return FunctionStats(0, 0, self.container_count, self.container_count)

    def calls(self, record: Any) -> CallListing:
        return CallListing((SUMMARY,))

    def call(self, record: Any) -> CallFlight:
        attempt = AttemptFlight(0, "succeeded", 0.0, 10.0, 11.0, "ct-1")
        one = InputFlight(0, "in-1:0", "succeeded", (attempt,))
        return CallFlight(SUMMARY, inputs=(one,), containers=(ContainerFlight(INFO, asked_ms=7.0),))

    def stopped(self, record: Any) -> None:
        """A container that goes on until it is stopped."""

    def container(self, record: Any) -> ContainerFlight:
        self.looks_until_gone -= 1
        known = replace(INFO, phase_ms=MARKS, path="parked", path_cause="")
        return ContainerFlight(known if self.looks_until_gone else replace(known, state=STOPPED))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    monkeypatch.setattr(cold_start, "ask", found.ask)
    monkeypatch.setattr(cold_start, "ask_pages", found.ask_pages)
    monkeypatch.setattr(cold_start, "_call", lambda subject: None)
    for name in ("LOOK_EVERY_S", "PAUSE_S"):
        monkeypatch.setattr(cold_start, name, 0.001)
    monkeypatch.setattr(cold_start, "IDLE_S", 0.05)
    return found


def test_a_start_is_looked_at_when_its_container_is_gone(server: Server) -> None:
    found = measure(SUBJECT)

    methods = [method for method, _ in server.asked]
    assert methods == ["CallList", "CallShow", "ContainerStop", "ContainerShow", "ContainerShow", "ContainerShow"]
    assert found.path == "parked", "its node had not told yet when the call was answered"
    assert dict(found.phases)["queued"] == 8, "also until the server asked for it"


def test_a_container_that_has_ended_by_itself_need_not_be_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(record: Any) -> None:
        raise ConflictError("ContainerStop: container ct-1 has ended")

    monkeypatch.setattr(server, "stopped", gone)

    assert measure(SUBJECT).container_id == "ct-1"


def test_a_container_that_stays_ends_the_measurement(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "GONE_S", 0.05)
    server.looks_until_gone = 10**9

    with pytest.raises(click.ClickException, match=r"ct-1 has not ended within 0\.05 s"):
        measure(SUBJECT)


def test_what_is_called_has_one_container_at_most_and_none_kept_for_it(server: Server) -> None:
    scaling = Scaling(min_containers=3, buffer_containers=2)
    definition = Definition(BY_FILE, "greeter", "hello", is_generator=True)
    spec = FunctionSpec(
        "fu-1", "ap-1", "hello", definition, "im-1", scaling=scaling, batching=Batching(4, wait_ms=5_000)
    )

    subject = prepare(spec, "", "", (1,), {})

    (options,) = [record.options for method, record in server.asked if method == "FunctionBind"]
    assert (options.max_containers, options.buffer_containers, options.retries.max_retries) == (1, 0, 0)
    assert options.batching == Batching(4, wait_ms=0), "a single input is not to wait for others"
    assert subject == Subject("fu-2", "ap-1", "hello", "", True, (1,), {})


def test_two_do_not_measure_one_function_at_a_time(server: Server) -> None:
    server.container_count = 1
    spec = FunctionSpec("fu-1", "ap-1", "hello", Definition(BY_FILE, "greeter", "hello"), "im-1")

    with pytest.raises(click.ClickException, match="measured by somebody else"):
        prepare(spec, "", "", (), {})


def test_a_function_whose_app_has_ended_says_what_to_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(record: Any) -> FunctionBound:
        raise NotFoundError("function fu-1 does not exist, or its app was stopped")

    monkeypatch.setattr(server, "bound", gone)
    spec = FunctionSpec("fu-1", "ap-1", "hello", Definition(BY_FILE, "greeter", "hello"), "im-1")

    with pytest.raises(click.ClickException, match="cannot measure hello: its app has ended; squall deploy FILE"):
        prepare(spec, "", "", (), {})


def test_the_next_start_waits_until_what_is_made_ahead_is_made(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "PAUSE_S", 0.05)
    server.parked_counts = [0, 0, 1, 1, 2]

    settle(SUBJECT)

    assert server.parked_counts == [2]
    assert server.looks_at_templates > 5, "and until nothing was added for a while"


def test_what_changes_for_ever_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "PAUSE_S", 60.0)
    monkeypatch.setattr(cold_start, "SETTLE_S", 0.05)

    settle(SUBJECT)

    assert server.looks_at_templates > 1


def test_its_template_is_waited_for_from_before_it_is_begun(server: Server) -> None:
    server.looks_until_begun = 2

    assert wait_for_template(SUBJECT)

    assert (server.looks_until_begun, server.template_states) == (0, [])


def test_one_that_takes_too_long_to_make_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "TEMPLATE_S", 0.05)
    server.looks_until_begun = 10**9

    assert not wait_for_template(SUBJECT)


def test_templates_of_others_that_are_gone_are_known_by_what_they_were_of(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(template_id: str, function_id: str, app_id: str = "ap-1", **how: Any) -> TemplateInfo:
        name = f"f{function_id[-1]}" if function_id else ""
        template = NodeTemplate(template_id, app_id, function_id, "function", **{"state": READY, **how})
        return TemplateInfo(template, "nd-1", "app" if app_id == "ap-1" else "ended", name)

    def changed(info: TemplateInfo, **how: Any) -> TemplateInfo:
        return replace(info, template=replace(info.template, **how))

    its, kept, image, elsewhere = one("tp-1", "fu-2"), one("tp-2", "fu-1"), one("tp-3", ""), one("tp-4", "fu-4")
    unfit, edited, ended = one("tp-5", "fu-5", state="unfit"), one("tp-6", "fu-6"), one("tp-7", "fu-7", "ap-2")
    elsewhere = replace(elsewhere, node_id="nd-2")
    listing = TemplateListing((its, kept, image, elsewhere, unfit, edited, ended))

    def ask_pages(method: str, *asked: Any) -> list[Any]:
        return [AppListing((AppInfo("ap-1", "app", "deployed", 0.0),)) if method == "AppList" else listing]

    monkeypatch.setattr(cold_start, "ask_pages", ask_pages)

    before = ready_of_others(SUBJECT)
    assert before == [kept, image, elsewhere, edited, ended]
    listing = TemplateListing((kept, image, elsewhere, edited))
    assert gone_of_others(SUBJECT, before) == []
    dropped = changed(kept, state=DROPPED, cause="there was no room")
    anew = changed(edited, template_id="tp-8", state=MAKING)
    silent = SilentNode("nd-2", "no answer within 5 s")
    listing = TemplateListing((dropped, anew), (silent,))

    assert gone_of_others(SUBJECT, before) == ["app", "app.f1 (there was no room)"]


def test_one_that_nobody_makes_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []

    def ask_pages(*asked: object) -> list[TemplateListing]:
        looks.append(asked)
        return [TemplateListing(())]

    monkeypatch.setattr(cold_start, "ask_pages", ask_pages)

    assert wait_for_template(SUBJECT)
    assert len(looks) == 1
