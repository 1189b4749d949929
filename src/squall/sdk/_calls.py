"""Calls this client waits for. Each keeps its inputs until it has their outputs, to send them again after a reconnect.

The methods that take what arrives run in whichever thread reads the connection: they note it and wake who waits.
Frames of this path are put together as text: the encoder of records costs more than a small call's way to the server.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any

from squall.protocol.call import IN_BLOB
from squall.protocol.records import record
from squall.sdk._pending import Pending, Reader

_PREFIX = struct.Struct("<II")


@record
class Output:
    """What came back for one input."""

    number: int
    """The input's index."""
    status: int
    value: bytes
    blob_sha256: str


@record
class Payload:
    """Arguments on their way: inline, or in a blob."""

    value: bytes
    blob_sha256: str = ""


def event(method: str, params: str, body: bytes = b"") -> bytes:
    """One event as a frame; `params` is JSON."""
    header = f'{{"k":"ev","m":"{method}","p":{params}}}'.encode()
    return _PREFIX.pack(len(header), len(body)) + header + body


def call_open(call_id: str, function_id: str, kind: str, parent_input_id: str, method: str = "") -> bytes:
    """The frame that begins a call. All of these are ids, or words: nothing needs escaping."""
    return event(
        "CallOpen",
        f'{{"call_id":"{call_id}","function_id":"{function_id}","kind":"{kind}"{_rest(parent_input_id, method)}}}',
    )


def _rest(parent_input_id: str, method: str) -> str:
    """What most calls do not have."""
    parent = f',"parent_input_id":"{parent_input_id}"' if parent_input_id else ""
    return f'{parent},"method":"{method}"' if method else parent


def remote_call(call_id: str, function_id: str, parent_input_id: str, value: bytes, method: str = "") -> bytes:
    """Both frames of a call of one inline input; the same as `call_open` and `put_inputs`, in a third of the time."""
    rest = _rest(parent_input_id, method) if parent_input_id or method else ""
    opened = (
        f'{{"k":"ev","m":"CallOpen","p":{{"call_id":"{call_id}","function_id":"{function_id}","kind":"remote"{rest}}}}}'
    ).encode()
    put = (f'{{"k":"ev","m":"PutInputs","p":{{"call_id":"{call_id}","indexes":[0],"sizes":[{len(value)}]}}}}').encode()
    return _PREFIX.pack(len(opened), 0) + opened + _PREFIX.pack(len(put), len(value)) + put + value


def put_inputs(call_id: str, inputs: list[tuple[int, Payload]]) -> bytes:
    """One frame with these inputs."""
    indexes = ",".join([str(index) for index, _ in inputs])
    sizes = ",".join([str(IN_BLOB if payload.blob_sha256 else len(payload.value)) for _, payload in inputs])
    blobs = ",".join([f'"{index}":"{payload.blob_sha256}"' for index, payload in inputs if payload.blob_sha256])
    blobs = f',"blobs":{{{blobs}}}' if blobs else ""
    return event(
        "PutInputs",
        f'{{"call_id":"{call_id}","indexes":[{indexes}],"sizes":[{sizes}]{blobs}}}',
        b"".join([payload.value for _, payload in inputs]),
    )


def call_close(call_id: str) -> bytes:
    """The frame that forgets a call."""
    return event("CallClose", f'{{"call_id":"{call_id}"}}')


def outputs_of(params: dict[str, Any], body: bytes) -> list[Output]:
    """The outputs in a `PutOutputs` event (or an answered `OutputBatch`)."""
    blobs = params.get("blobs") or {}
    outputs = []
    offset = 0
    for index, status, size in zip(params["indexes"], params["statuses"], params["sizes"], strict=True):
        end = offset + size if size > 0 else offset
        outputs.append(Output(index, status, body[offset:end], blobs.get(str(index), "") if size < 0 else ""))
        offset = end
    return outputs


class RemoteCall:
    """One input, one output."""

    __slots__ = ("_frames", "call_id", "pending")

    def __init__(self, call_id: str, frames: bytes, reader: Reader) -> None:
        self.call_id = call_id
        self._frames = frames
        self.pending: Pending[Output] = Pending(reader)

    def take_outputs(self, params: dict[str, Any], body: bytes) -> None:
        """Its output came: there is one, and the body is all of it."""
        blobs = params.get("blobs")
        self.pending.set(Output(0, params["statuses"][0], body, blobs.get("0", "") if blobs else ""))

    def take_items(self, params: dict[str, Any], body: bytes) -> None:
        """A call of one value has no items."""

    def frames(self) -> bytes:
        """What to send at first, and again after a reconnect."""
        return b"" if self.pending.is_done else self._frames

    def fail(self, error: BaseException) -> None:
        """There will be no output."""
        self.pending.fail(error)


class _Waking:
    """Wakes the one consumer of a call that has many things to come."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._signal: Pending[None] | None = None
        self.error: BaseException | None = None

    def wake(self) -> None:
        """Something came."""
        signal = self._signal
        if signal is not None:
            signal.set(None)

    def fail(self, error: BaseException) -> None:
        """Nothing more will come."""
        self.error = error
        self.wake()

    def arm(self) -> Pending[None]:
        """Done at the next `wake`. The caller looks once more whether something came before it waits."""
        signal: Pending[None] = Pending(self._reader)
        self._signal = signal
        return signal


class MapCall(_Waking):
    """Many inputs, each with its output."""

    def __init__(
        self,
        call_id: str,
        function_id: str,
        parent_input_id: str,
        reader: Reader,
        method: str = "",
        is_unknown: Callable[[Output], bool] | None = None,
    ) -> None:
        """`is_unknown` says of an output that the server does not know the function; with it, such outputs are held
        back until there is another one, or `refusal` has been looked at."""
        super().__init__(reader)
        self.call_id = call_id
        self._parent_input_id = parent_input_id
        self._method = method
        self._open = call_open(call_id, function_id, "map", parent_input_id, method)
        self._is_unknown = is_unknown
        self._refused: dict[int, Output] = {}
        self._unanswered: dict[int, Payload] = {}
        self._is_opened = False
        # Each is counted by one thread: what is sent by the caller's, what comes by the one that reads.
        self._sent_bytes = self._answered_bytes = 0
        self._output_count = self._output_bytes = 0
        self.ready: deque[Output] = deque()

    @property
    def outstanding(self) -> int:
        """Inputs without an output."""
        return len(self._unanswered)

    @property
    def outstanding_bytes(self) -> int:
        """What they have in them."""
        return self._sent_bytes - self._answered_bytes

    @property
    def output_bytes_mean(self) -> int:
        """How large outputs have been; 0 before the first."""
        return self._output_bytes // self._output_count if self._output_count else 0

    def add(self, inputs: list[tuple[int, Payload]]) -> bytes:
        """Keep these inputs; returns the frames that send them."""
        self._unanswered.update(inputs)
        self._sent_bytes += sum([len(payload.value) for _, payload in inputs])
        frames = put_inputs(self.call_id, inputs)
        if not self._is_opened:
            self._is_opened = True
            return self._open + frames
        return frames

    def take_outputs(self, params: dict[str, Any], body: bytes) -> None:
        """Outputs came; those we have already are dropped."""
        outputs = outputs_of(params, body)
        if self._is_unknown is not None:
            outputs = self._hold_back(outputs)
        unanswered, ready = self._unanswered, self.ready
        for output in outputs:
            payload = unanswered.pop(output.number, None)
            if payload is not None:
                self._answered_bytes += len(payload.value)
                self._output_count += 1
                self._output_bytes += len(output.value)
                ready.append(output)
        self.wake()

    def _hold_back(self, outputs: list[Output]) -> list[Output]:
        """Those to go on with: none of them, while all say that there is no such function."""
        assert self._is_unknown is not None
        for output in outputs:
            if not self._is_unknown(output):
                self._is_unknown = None
                held, self._refused = self._refused, {}
                return [*held.values(), *outputs]
            self._refused[output.number] = output
        return []

    @property
    def refusal(self) -> Output | None:
        """Says that the server does not know the function, when it has said so of all inputs: none has begun."""
        refused = self._refused
        return next(iter(refused.values())) if refused and len(refused) == len(self._unanswered) else None

    def with_function(self, call_id: str, function_id: str) -> MapCall:
        """Another call, with the inputs of this one; it is sent by its `frames`."""
        call = MapCall(call_id, function_id, self._parent_input_id, self._reader, self._method)
        call._unanswered = dict(self._unanswered)
        call._sent_bytes = self._sent_bytes
        call._is_opened = True
        return call

    def take_items(self, params: dict[str, Any], body: bytes) -> None:
        """Generators cannot be mapped."""

    def frames(self) -> bytes:
        """All that the server needs to go on after a reconnect."""
        inputs = list(self._unanswered.items())
        frames = [self._open] if self._is_opened else []
        for start in range(0, len(inputs), 250):
            frames.append(put_inputs(self.call_id, inputs[start : start + 250]))
        return b"".join(frames)


class GeneratorCall(_Waking):
    """One input, many items, then an output that says how many they were."""

    def __init__(
        self, call_id: str, function_id: str, parent_input_id: str, payload: Payload, reader: Reader, method: str = ""
    ) -> None:
        super().__init__(reader)
        self.call_id = call_id
        opened = call_open(call_id, function_id, "generator", parent_input_id, method)
        self._frames = opened + put_inputs(call_id, [(0, payload)])
        self._received = 0
        self.items: deque[tuple[bytes, str]] = deque()
        """Values and hashes: one of the two is set."""
        self.output: Output | None = None

    def take_items(self, params: dict[str, Any], body: bytes) -> None:
        """Items came. A new attempt yields the first ones again: those we have are dropped."""
        blobs = params.get("blobs") or {}
        offset = 0
        for number, size in enumerate(params["sizes"], params["first"]):
            end = offset + size if size > 0 else offset
            if number >= self._received:
                self.items.append((body[offset:end], blobs.get(str(number), "") if size < 0 else ""))
                self._received = number + 1
            offset = end
        self.wake()

    def take_outputs(self, params: dict[str, Any], body: bytes) -> None:
        """The generator has ended, or failed."""
        outputs = outputs_of(params, body)
        if outputs and self.output is None:
            self.output = outputs[0]
        self.wake()

    def frames(self) -> bytes:
        """What to send at first, and again after a reconnect."""
        return b"" if self.output is not None else self._frames

    def credit(self, count: int) -> bytes:
        """The frame that says that this many items were taken."""
        return event("ItemCredit", f'{{"call_id":"{self.call_id}","index":0,"count":{count}}}')
