"""Batches: inputs that one call of the user's function runs. It is given a list for each of its parameters, and returns
a list of results.

An input whose arguments do not fit, or whose result cannot be pickled, fails alone. What else goes wrong is the failure
of all. One that is cancelled is answered at once, and its result is dropped, as long as another one is wanted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from squall.exception import InputCancellation, InvalidError
from squall.guest.inbox import Input, Key, Stopping, Work
from squall.guest.runner import Outcome, RunnerParts, cancelled, failed
from squall.protocol.call import FAILED, SUCCEEDED
from squall.sdk import _container
from squall.sdk._serialization import encode_exception


class Batch:
    """Inputs that are run together, under the name of the first."""

    __slots__ = ("call_id", "input_id", "inputs", "keys", "listed", "outcomes", "wanted")

    def __init__(self, inputs: tuple[Input, ...]) -> None:
        self.inputs = inputs
        self.keys: tuple[Key, ...] = tuple([(one.call_id, one.index) for one in inputs])
        self.call_id = inputs[0].call_id
        self.input_id = inputs[0].input_id
        self.wanted = dict.fromkeys(self.keys)
        """Those that were not cancelled."""
        self.listed: list[Input] = []
        """Those whose arguments are in the lists."""
        self.outcomes: dict[Key, Outcome] = {}
        """What became of each, where that is not the same for all."""

    @property
    def has_blobs(self) -> bool:
        """Whether something has to be fetched first."""
        return any(one.blob_sha256 for one in self.inputs)

    def without(self, gone: set[Key]) -> Batch | None:
        """What is left of it when these were given back."""
        if gone.isdisjoint(self.keys):
            return self
        left = tuple([one for one in self.inputs if one.keys[0] not in gone])
        return Batch(left) if left else None


class BatchParts(RunnerParts):
    """What a runner runs batches with."""

    def arguments(self, item: Work) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See `RunnerParts`: one list for each parameter.

        Raises:
            BaseException: of the first input, when the arguments of none fit.
        """
        assert isinstance(item, Batch)
        signature = inspect.signature(self.function)
        columns: dict[str, list[Any]] = {name: [] for name in signature.parameters}
        unfit: list[tuple[Input, BaseException]] = []
        for one in item.inputs:
            try:
                given = self._bound(signature, one)
            except BaseException as error:
                if isinstance(error, Stopping):
                    raise
                unfit.append((one, error))
                continue
            item.listed.append(one)
            for name, value in given.items():
                columns[name].append(value)
        for one, why in unfit:
            # The first is raised when there is no other, and put into the log there.
            item.outcomes[one.keys[0]] = failed(why) if item.listed else _quietly_failed(why)
        if not item.listed:
            raise unfit[0][1]
        parameters = signature.parameters.values()
        named = {one.name: columns[one.name] for one in parameters if one.kind == one.KEYWORD_ONLY}
        return tuple([columns[name] for name in columns if name not in named]), named

    def _bound(self, signature: inspect.Signature, one: Input) -> dict[str, Any]:
        args, kwargs = self.values.arguments(one)
        try:
            return signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            names = ", ".join(signature.parameters)
            raise InvalidError(
                f"{_name()}: {error}; every input of a batched function must give each of its parameters ({names})"
            ) from None

    def returned(self, item: Work, result: Any) -> Outcome:
        """See `RunnerParts`.

        Raises:
            InvalidError: it is not a list of as many results.
        """
        assert isinstance(item, Batch)
        if not isinstance(result, list):
            raise InvalidError(
                f"{_name()} is batched and returned {type(result).__name__}; return a list, with one result for each "
                "input"
            )
        if len(result) != len(item.listed):
            raise InvalidError(
                f"{_name()} was given a batch of {len(item.listed)} and returned {len(result)} results; return one for "
                "each input, in their order"
            )
        for one, value in zip(item.listed, result, strict=True):
            try:
                item.outcomes[one.keys[0]] = (SUCCEEDED, *self.values.result(value))
            except BaseException as error:
                if isinstance(error, (InputCancellation, Stopping)):
                    raise  # of all
                item.outcomes[one.keys[0]] = failed(error)
        return SUCCEEDED, b"", ""

    def answer(self, item: Work, outcome: Outcome, run_us: int) -> None:
        """See `RunnerParts`."""
        assert isinstance(item, Batch)
        outcomes = item.outcomes
        if self.inbox.is_cancelled(item):
            outcome, outcomes = cancelled(), {}
        for one in item.inputs:
            if one.keys[0] in item.wanted:
                status, value, blob_sha256 = outcomes.get(one.keys[0], outcome)
                self.outbox.add(one.call_id, one.index, one.attempt, status, value, run_us, blob_sha256)
                self.inbox.answered(one)


class BatchCancellation:
    """Cancels inputs of batches: those that are not the last wanted of theirs are answered, and their batch goes on."""

    def __init__(self, parts: RunnerParts, cancel: Callable[[str, int], None]) -> None:
        self._parts = parts
        self._cancel = cancel
        """Of the runner: ends what runs."""

    def cancel(self, call_id: str, index: int) -> None:
        """Cancel one input that the runner has taken. From the thread that reads."""
        batch = self._parts.inbox.taken_with(call_id, index)
        if not isinstance(batch, Batch) or len(batch.wanted) < 2:
            self._cancel(call_id, index)
            return
        batch.wanted.pop((call_id, index), None)
        one = next(one for one in batch.inputs if one.keys[0] == (call_id, index))
        status, value, _ = cancelled()
        self._parts.outbox.add(call_id, index, one.attempt, status, value, 0)
        self._parts.inbox.answered(one)
        self._parts.outbox.flush()


def _quietly_failed(error: BaseException) -> Outcome:
    """As `failed`, of what is put into the log elsewhere."""
    return FAILED, encode_exception(error, _container.container_id()), ""


def _name() -> str:
    state = _container.current()
    return f"function {state.boot.function_name}" if state is not None else "the function"
