"""Starting durable calls: on disk before their id is known, few requests on the way whatever the program asks for."""

from __future__ import annotations

from collections import deque
from typing import Any

from squall.exception import NotFoundError
from squall.protocol.call import (
    IN_BLOB,
    SPAWN_MAP,
    CallExtend,
    CallOpen,
    CallSpawn,
    CallSpawned,
    InputBatch,
    SpawnBatch,
)
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.sdk import _invoke, _map, _pending
from squall.sdk._calls import Payload
from squall.sdk._client import Client
from squall.sdk._feed import Feed
from squall.sdk._pending import Pending, Reader
from squall.sdk._target import Target

PORTION_INPUTS = 512
"""In one request, or as many as have `_map.BATCH_BYTES`."""
REQUESTS_MAX = 2
"""Of spawns that go together, that are on their way at a time: one is being committed while the next one comes."""
ALL_REQUESTS_MAX = 16
"""The same of all single spawns."""
LOOK_S = 10.0
RETRY_S_MAX = 5.0
"""Between two questions whether there is room for more inputs."""


_Key = tuple[str, str, str]
"""Function, method and the input that spawns: what goes together has it in common."""


class _Spawn:
    """One input on its way, or about to be."""

    __slots__ = ("_reader", "call_id", "error", "is_answered", "is_given_up", "payload", "told")

    def __init__(self, payload: Payload, reader: Reader) -> None:
        self.call_id = new_id("fc")
        self.payload = payload
        self.is_answered = False
        self.is_given_up = False
        """Nobody waits for it: unless it is on its way already, it is not sent."""
        self.error: BaseException | None = None
        self._reader = reader
        self.told: Pending[None] = Pending(reader)
        """There is news: it is answered, or may be sent."""

    async def news(self, timeout_s: float) -> bool:
        """Wait until it is told something, at most so long; whether it is answered."""
        if await self.told.within(timeout_s) and not self.is_answered:
            self.told = Pending(self._reader)
        # In this order: an answer that comes meanwhile is seen here, and any later one is told to the new one.
        return self.is_answered

    def answer(self, error: BaseException | None) -> None:
        """It is on disk, or never will be."""
        self.error = error
        self.is_answered = True
        self.told.set(None)


class _Line(deque[_Spawn]):
    """Spawns that wait and may go together."""

    def __init__(self, key: _Key) -> None:
        super().__init__()
        self.key = key
        self.is_listed = False
        """Among those whose turn comes."""

    def begins_with(self, one: _Spawn) -> bool:
        """Whether it is the next."""
        try:
            return self[0] is one
        except IndexError:
            return False


class Spawner:
    """Sends the spawns of a client, from whichever threads and tasks. Those that come while requests are on their way
    share the next one, if they are of the same function and parent: one alone leaves at once, and a hundred thousand
    take few requests, as many calls in one transaction. The others take turns.

    Without locks: see `_turn.py`. Each step here may be taken by two threads at once, or be interrupted after. A line
    may be listed twice, and one that is taken off `_lines` may be listed still: neither does harm.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lines: dict[_Key, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._under_way: dict[int, _Key] = {}
        self._answer_count = 0

    async def spawn(self, key: _Key, payload: Payload) -> str:
        """Start a call of one input; its id, once it is on disk."""
        one = _Spawn(payload, self._client.connection)
        line = self._lines.get(key)
        if line is None:
            line = self._lines.setdefault(key, _Line(key))
        line.append(one)
        if not line.is_listed:
            self._list(line)
        try:
            self.send()
            # Whoever is answered sends for those who wait, before going on; and who is next is told, because those
            # may have given up, or be tasks in a loop that does not turn. So may who is next, or a Ctrl-C may have come
            # while somebody looked at our line: so look again.
            while not await one.news(LOOK_S):
                if line.begins_with(one) and not any(listed is line for listed in list(self._turns)):
                    self._list(line)
                self.send()
            if one.error is not None:
                raise one.error
        finally:
            one.is_given_up = not one.is_answered
            self.send()
        return one.call_id

    def _list(self, line: _Line) -> None:
        line.is_listed = True
        self._turns.append(line)

    def send(self) -> None:
        """Send what waits, if not too much is under way."""
        while self._turns and len(self._under_way) < ALL_REQUESTS_MAX:
            count = self._answer_count
            if not self._send_round() and count == self._answer_count:
                return  # else, whoever was answered meanwhile may not have found the line that was being looked at

    def _send_round(self) -> bool:
        """Give each line a turn; whether anything was sent."""
        has_sent = False
        for _ in range(len(self._turns)):
            if len(self._under_way) >= ALL_REQUESTS_MAX:
                break
            try:
                line = self._turns.popleft()
            except IndexError:
                break  # another thread was faster
            try:
                if list(self._under_way.values()).count(line.key) < REQUESTS_MAX:
                    has_sent |= self._send_some(line)
            finally:
                # In this order: who finds the line listed leaves it at that, and what it has put there is seen here.
                line.is_listed = False
                if line:
                    self._list(line)
            if not line and self._lines.get(line.key) is line:
                self._lines.pop(line.key, None)
        return has_sent

    def _send_some(self, line: _Line) -> bool:
        taken: list[_Spawn] = []
        try:
            self._take(line, taken)
            if taken:
                self._ask(line.key, taken)
        except BaseException:
            # A Ctrl-C of ours, and they are of others, too. Said twice, the server has them once.
            line.extendleft(reversed(taken))
            raise
        return bool(taken)

    def _take(self, line: _Line, taken: list[_Spawn]) -> None:
        """The next that go together."""
        size_bytes = 0
        while len(taken) < PORTION_INPUTS and size_bytes < _map.BATCH_BYTES:
            try:
                one = line.popleft()
            except IndexError:
                return
            if one.is_given_up:
                continue
            taken.append(one)
            size_bytes += len(one.payload.value)

    def _ask(self, key: _Key, spawns: list[_Spawn]) -> None:
        function_id, method, parent_id = key
        payloads = [one.payload for one in spawns]
        record = SpawnBatch(
            function_id,
            tuple([one.call_id for one in spawns]),
            _sizes(payloads),
            _blobs(payloads, 0),
            parent_id,
            method,
        )
        number = id(record)
        self._under_way[number] = key
        try:
            answer = self._client.ask("CallSpawnMany", record, b"".join([one.value for one in payloads]))
        except BaseException:
            self._under_way.pop(number, None)
            raise
        answer.add_callback(lambda: self._answered(number, answer, spawns))

    def _answered(self, number: int, answer: Pending[Any], spawns: list[_Spawn]) -> None:
        self._under_way.pop(number, None)
        self._answer_count += 1
        error = answer.error
        for one in spawns:
            one.answer(error if error is None or one is spawns[-1] else _same(error))
        self._tell_next()

    def _tell_next(self) -> None:
        """Who is next may be sent. Not from here: this may be the thread that reads, which must not wait to write."""
        try:
            one = self._turns[0][0]
        except IndexError:
            return  # nobody waits, or another thread was faster, and looks at all of them
        if one.is_given_up:
            waiting = (one for line in list(self._turns) for one in list(line) if not one.is_given_up)
            one = next(waiting, one)
        one.told.set(None)


def _same(error: BaseException) -> BaseException:
    """The error again: raised in many places, one object would collect all their tracebacks."""
    return type(error)(*error.args)


def _spawner(client: Client) -> Spawner:
    spawner = client.spawner
    if not isinstance(spawner, Spawner):
        spawner = client.spawner = Spawner(client)
    return spawner


async def spawn(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "") -> str:
    """Start a call of one input; returns its id when it is on disk.

    Raises:
        ResourceExhaustedError: too many inputs of the function wait, or the server's disk is full.
    """
    key = (target.function_id, method, _invoke.parent_input_id())
    return await _spawner(target.client).spawn(key, await _invoke.pack(target.client, args, kwargs, target.name))


async def spawn_map(target: Target, form: str, feed: Feed, kwargs: dict[str, Any], method: str = "") -> str:
    """Start one call for all inputs of a map, while they are pulled; returns its id when all are on disk.

    What was taken before an iterator raises, or this process ends, is run. With more inputs waiting than the server
    takes, it waits, too. `form` is the method of the function that its user has called.

    Raises:
        ResourceExhaustedError: the server's disk is full.
        ConflictError: the call was cancelled meanwhile.
    """
    growing = _GrowingCall(target, form, method)
    try:
        await _send(growing, target, feed, kwargs)
    finally:
        feed.close()
    return growing.call_id


async def _send(growing: _GrowingCall, target: Target, feed: Feed, kwargs: dict[str, Any]) -> None:
    is_last = False
    while not is_last:
        payloads: list[Payload] = []
        size_bytes = 0
        while len(payloads) < PORTION_INPUTS and size_bytes < _map.BATCH_BYTES:
            args = await feed.pull_async()
            if args is None:
                is_last = True
                break
            payload = await _invoke.pack(target.client, args, kwargs, target.name)
            payloads.append(payload)
            size_bytes += len(payload.value)
        await growing.add(payloads, is_last=is_last)
    await growing.settle()


class _GrowingCall:
    """A call that inputs are added to; one request is on its way while the next one is made."""

    def __init__(self, target: Target, form: str, method: str) -> None:
        self.call_id = new_id("fc")
        self._target = target
        self._form = form
        self._client = target.client
        self._opened = CallOpen(self.call_id, target.function_id, SPAWN_MAP, _invoke.parent_input_id(), method)
        self._input_count = 0
        self._is_begun = False
        self._asked: tuple[str, Any, bytes] | None = None
        self._answer: Pending[Any] | None = None

    async def add(self, payloads: list[Payload], *, is_last: bool) -> None:
        """Send inputs, once those before them are on disk."""
        batch = _batch(self.call_id, self._input_count, payloads)
        body = b"".join([payload.value for payload in payloads])
        self._input_count += len(payloads)
        await self.settle()
        if self._is_begun:
            self._ask("CallExtend", CallExtend(batch, is_last), body)
            return
        self._is_begun = True
        self._ask("CallSpawn", CallSpawn(self._opened, batch, is_growing=True), body)
        if is_last:
            # Only growing calls wait for room: one of few inputs ends with a request of its own.
            await self.settle()
            self._ask("CallExtend", CallExtend(_batch(self.call_id, self._input_count, []), is_last=True), b"")

    def _ask(self, method: str, record: Any, body: bytes) -> None:
        self._asked = (method, record, body)
        self._answer = self._client.ask(method, record, body)

    async def settle(self) -> None:
        """Wait until all that was sent is on disk, and for as long as there is no room for it."""
        delay_s = 0.0
        while self._answer is not None:
            refused = None
            try:
                params, _ = await self._answer
            except NotFoundError as error:
                refused = error
            if refused is not None:
                await self._call_another(refused)
                continue
            retry_s = self._client.codec.record(CallSpawned, params).retry_s
            if not retry_s:
                self._answer = None
                return
            delay_s = min(max(retry_s, 2 * delay_s), RETRY_S_MAX)
            await _pending.sleep(delay_s)
            assert self._asked is not None
            self._ask(*self._asked)

    async def _call_another(self, refused: NotFoundError) -> None:
        """Where the call was not even begun: with the function that has the name by now."""
        assert self._asked is not None
        method, record, body = self._asked
        if method != "CallSpawn":
            raise refused
        self._target = await self._target.again(refused, self._form)
        opened = replace(record.call, function_id=self._target.function_id)
        self._ask(method, replace(record, call=opened), body)


def _batch(call_id: str, first: int, payloads: list[Payload]) -> InputBatch:
    indexes = tuple(range(first, first + len(payloads)))
    return InputBatch(call_id, indexes, _sizes(payloads), blobs=_blobs(payloads, first))


def _sizes(payloads: list[Payload]) -> tuple[int, ...]:
    return tuple([IN_BLOB if payload.blob_sha256 else len(payload.value) for payload in payloads])


def _blobs(payloads: list[Payload], first: int) -> dict[str, str]:
    return {str(index): payload.blob_sha256 for index, payload in enumerate(payloads, first) if payload.blob_sha256}
