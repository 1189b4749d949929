"""Who reads the connection, what is given back, what survives a reconnect."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.exception import InputCancellation
from squall.guest.inbox import Inbox, Stopping
from squall.guest.link import Link
from squall.guest.outbox import Outbox
from squall.protocol.call import SUCCEEDED, InputBatch, InputRefs, ItemCredit, OutputBatch
from squall.protocol.guest import GuestHello, GuestStop, Holding, Ready
from tests.guest.agent_double import AgentDouble

CALL = "fc-0123456789"


class Guest:
    """A guest's parts, connected to an agent double."""

    def __init__(self, path: Path) -> None:
        self.agent = AgentDouble(path)
        self.cancelled: list[tuple[str, int]] = []
        self.link = Link(str(path), "token", "ct-00000000")
        self.outbox = Outbox(self.link)
        self.inbox = Inbox(self.link, self.outbox, lambda call_id, index: self.cancelled.append((call_id, index)))

    def start(self) -> None:
        self.link.connect()
        self.inbox.start(Ready(10))
        self.agent.expect("Ready", Ready)

    def give(self, *indexes: int) -> None:
        values = [str(index).encode() for index in indexes]
        sizes = tuple(len(value) for value in values)
        self.agent.say("Inputs", InputBatch(CALL, indexes, sizes, (0,) * len(indexes)), b"".join(values))


@pytest.fixture
def guest(data_dir: Path) -> Iterator[Guest]:
    guest = Guest(data_dir / "a.sock")
    guest.start()
    yield guest
    guest.inbox.is_stopping = True
    guest.inbox.close()
    guest.inbox.began()  # wakes the watcher, which ends
    guest.inbox.ended()
    # No thread may be about to read from the socket that is closed now: its number will be another's.
    assert guest.inbox._watcher is not None
    guest.inbox._watcher.join(10)
    guest.link.disconnect()
    guest.agent.close()


def wait_until(condition: object, timeout_s: float = 5.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def test_guest_introduces_itself_with_its_token(data_dir: Path) -> None:
    guest = Guest(data_dir / "a.sock")

    guest.link.connect()

    hello, _ = guest.agent.expect("GuestHello", GuestHello)
    assert (hello.token, hello.role, hello.container_id) == ("token", "guest", "ct-00000000")
    guest.agent.close()
    guest.link.disconnect()


def test_inputs_come_in_order(guest: Guest) -> None:
    guest.give(0, 1)
    guest.give(2)

    taken = [guest.inbox.take().inputs[0] for _ in range(3)]

    assert [(item.index, item.value) for item in taken] == [(0, b"0"), (1, b"1"), (2, b"2")]
    assert taken[0].input_id == "in-0123456789:0"


def test_unstarted_inputs_are_given_back_while_user_code_runs(guest: Guest) -> None:
    guest.give(0, 1, 2)
    guest.inbox.take()
    guest.inbox.began()

    guest.agent.say("TakeBack", InputRefs(CALL, (0, 2)))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    guest.inbox.ended()
    # 0 had begun: it is not given back, and 1 was not asked for.
    assert refs.indexes == (2,)
    assert guest.inbox.take().inputs[0].index == 1


def test_input_lost_with_a_connection_is_given_back_when_asked_for(guest: Guest) -> None:
    guest.give(0)
    guest.inbox.answered(guest.inbox.take())
    guest.outbox.add(CALL, 0, 0, SUCCEEDED, b"done", 5)
    guest.give(1)
    guest.inbox.take()
    guest.inbox.began()

    guest.agent.say("TakeBack", InputRefs(CALL, (0, 1, 7)))

    # The output comes first: input 0 is done, and the server must not queue it again.
    outputs, _ = guest.agent.expect("Outputs", OutputBatch)
    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    guest.inbox.ended()
    assert outputs.indexes == (0,)
    assert refs.indexes == (0, 7)


def test_cancellation_reaches_a_busy_guest(guest: Guest) -> None:
    guest.give(0)
    guest.inbox.take()
    guest.inbox.began()
    time.sleep(0.05)

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    wait_until(lambda: guest.cancelled)
    guest.inbox.ended()
    assert guest.cancelled == [(CALL, 0)]


def test_output_leaves_while_the_next_input_runs_long(guest: Guest) -> None:
    guest.give(0, 1)
    guest.inbox.take()
    guest.outbox.add(CALL, 0, 0, SUCCEEDED, b"done", 5)
    guest.inbox.take()

    guest.inbox.began()

    outputs, body = guest.agent.expect("Outputs", OutputBatch, timeout_s=2)
    guest.inbox.ended()
    assert outputs.indexes == (0,)
    assert body == b"done"


def test_stop_gives_back_what_has_not_begun(guest: Guest) -> None:
    guest.give(0, 1)
    guest.inbox.take()

    guest.inbox.began()
    guest.agent.say("GuestStop", GuestStop(5.0))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    guest.inbox.ended()
    assert refs.indexes == (1,)
    with pytest.raises(Stopping):
        guest.inbox.take()


def test_reconnect_delivers_what_could_not_be_sent(guest: Guest) -> None:
    guest.give(0, 1)
    guest.inbox.take()
    guest.inbox.began()

    guest.agent.drop()
    wait_until(lambda: not guest.link.is_connected)
    guest.outbox.add(CALL, 0, 0, SUCCEEDED, b"late", 5)
    guest.outbox.flush()
    guest.agent.come_back()
    hello, _ = guest.agent.expect("GuestHello", GuestHello)
    said: dict[str, tuple[Any, bytes]] = {}
    while not {"Ready", "Outputs"} <= said.keys():
        envelope, body = guest.agent.events.get(timeout=10)
        said[envelope.method] = (envelope.params, body)
    params, body = said["Outputs"]
    outputs = guest.agent.codec.record(OutputBatch, params)
    guest.inbox.ended()
    guest.give(1)

    assert hello.is_reconnect
    assert (outputs.indexes, body) == ((0,), b"late")
    # Once all guests are ready, a new server hands out what it has no output of.
    assert list(said)[-2:] == ["Outputs", "Ready"]
    # Input 1 of before the break was dropped: only the one sent again is run.
    assert guest.inbox.take().inputs[0].index == 1
    assert not guest.inbox.has_input()


def test_guest_that_comes_back_names_what_it_runs(guest: Guest) -> None:
    guest.agent.say("Inputs", InputBatch(CALL, (0, 1, 2), (1, 1, 1), (3, 0, 0)), b"abc")
    running = guest.inbox.take()
    guest.inbox.began()
    time.sleep(0.1)

    guest.agent.drop()
    wait_until(lambda: not guest.link.is_connected)
    guest.agent.come_back()
    methods: list[str] = []
    while "Ready" not in methods:
        envelope, _ = guest.agent.events.get(timeout=10)
        methods.append(envelope.method)
        if envelope.method == "Holding":
            holding = guest.agent.codec.record(Holding, envelope.params)
    guest.inbox.ended()
    guest.inbox.answered(running)

    # Before it says Ready, and not what was to come after it: that is dropped.
    assert methods[-3:] == ["GuestHello", "Holding", "Ready"]
    assert (holding.call_id, holding.indexes, holding.attempts) == (CALL, (0,), (3,))
    assert 0.1 <= holding.running_s[0] < 10
    assert not guest.inbox.has_input()


def test_guest_that_runs_nothing_names_nothing_when_it_comes_back(guest: Guest) -> None:
    guest.give(0)
    guest.inbox.answered(guest.inbox.take())
    reader = threading.Thread(target=guest.inbox.take, daemon=True)
    reader.start()

    guest.agent.drop()
    wait_until(lambda: not guest.link.is_connected)
    guest.agent.come_back()

    assert guest.agent.events.get(timeout=10)[0].method == "GuestHello"
    assert guest.agent.events.get(timeout=10)[0].method == "Ready"
    guest.give(0)
    reader.join(5)


def test_generator_waits_for_its_consumer(guest: Guest) -> None:
    guest.give(0)
    guest.inbox.take()
    guest.inbox.began()
    waited = threading.Event()

    def wait() -> None:
        guest.inbox.wait_item_credit(CALL, 0, 2)
        waited.set()

    threading.Thread(target=wait, daemon=True).start()
    guest.agent.say("ItemCredit", ItemCredit(CALL, 0, 1))
    assert not waited.wait(0.2)
    guest.agent.say("ItemCredit", ItemCredit(CALL, 0, 1))

    assert waited.wait(5)
    guest.inbox.ended()


@pytest.mark.long
def test_idle_guest_uses_no_processor(guest: Guest) -> None:
    reader = threading.Thread(target=guest.inbox.take, daemon=True)
    reader.start()
    time.sleep(0.2)
    before = time.process_time()

    time.sleep(0.5)
    used_s = time.process_time() - before
    guest.give(0)
    reader.join(5)

    assert used_s < 0.02
    assert not reader.is_alive()


def test_frame_that_was_interrupted_half_way_ends_the_connection(data_dir: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise InputCancellation("now")

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(data_dir / "deaf.sock"))
    listening.listen()
    link = Link(str(data_dir / "deaf.sock"), "token", "ct-00000000")
    link.connect()
    interruption = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR2))
    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        interruption.start()
        with pytest.raises(InputCancellation):
            link.send("Items", InputRefs(CALL, (0,)), bytes(16 * 2**20))
    finally:
        signal.signal(signal.SIGUSR2, before)

    assert not link.send("GivenBack", InputRefs(CALL, (0,)))
    assert link.receive() is None
    listening.close()
