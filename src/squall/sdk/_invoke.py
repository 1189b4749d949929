"""The ways to call a function with one input; many are `_map`. Nothing here knows what a function is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from squall.exception import DeserializationError, InternalFailure, SerializationError
from squall.protocol.call import SUCCEEDED
from squall.protocol.frames import INLINE_BYTES_MAX
from squall.sdk import _blob, _container, _shown
from squall.sdk._calls import GeneratorCall, Output, Payload, RemoteCall, call_open, put_inputs, remote_call
from squall.sdk._client import Client
from squall.sdk._client import current as current
from squall.sdk._pending import run
from squall.sdk._pieces import checked_size, is_large
from squall.sdk._serialization import deserialize, raise_failure, serialize, serialize_pieces
from squall.sdk._target import NoFunction

ITEM_CREDIT_STEP = 256

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def parent_input_id() -> str:
    """The input this call is made from, or empty; raises InvalidError where a container imports its module."""
    return _container.calling_input_id()


def named(error: SerializationError | DeserializationError, name: str) -> SerializationError | DeserializationError:
    """The error with the function whose arguments or results these are, if that is known."""
    return type(error)(f"function {name}: {error}") if name else error


async def pack(client: Client, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = "") -> Payload:
    """Arguments as they travel; large ones are put in the blob store first. `name` is the function's, for errors."""
    try:
        pieces = serialize_pieces((args, kwargs), (*args, *kwargs.values()))
    except SerializationError as error:
        raise named(error, name) from error.__cause__
    if checked_size(pieces, "the input") <= INLINE_BYTES_MAX:
        return Payload(b"".join(pieces))
    return Payload(b"", await _blob.put(client, pieces))


async def unpack(client: Client, output: Output, name: str = "") -> Any:
    """The value of an output, or raise its failure; log lines that came before it are shown first."""
    if _shown.displays:
        await _shown.catch_up()
    if output.status != SUCCEEDED:
        raise_failure(await failure_bytes(client, output))
    value: Any = await _blob.get(client, output.blob_sha256) if output.blob_sha256 else output.value
    try:
        return deserialize(value)
    except DeserializationError as error:
        raise named(error, name) from error.__cause__


def says_unknown(output: Output) -> bool:
    """Whether it says that the server does not know the function that was called."""
    if output.status == SUCCEEDED or output.blob_sha256:
        return False
    from squall.sdk._failure import is_unknown  # cold start: only when something failed

    return is_unknown(output.value)


def check_known(output: Output) -> None:
    """Raises NoFunction when the output says that the server does not know the function that was called."""
    if says_unknown(output):
        raise unknown(output)


def unknown(output: Output) -> NoFunction:
    """What an output says that the server does not know the function."""
    from squall.sdk._failure import to_exception  # cold start: as above

    return NoFunction(to_exception(output.value))


async def failure_bytes(client: Client, output: Output) -> bytes:
    """The failure of an output, wherever it is kept."""
    return b"".join(await _blob.get(client, output.blob_sha256)) if output.blob_sha256 else output.value


async def remote(
    client: Client, function_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "", name: str = ""
) -> Any:
    """Run one input and wait for its value.

    Raises:
        BaseException: why there is none.
        NoFunction: the server does not know the function.
    """
    parent_id = parent_input_id()
    payload = await pack(client, args, kwargs, name)
    call_id = client.new_call_id()
    frames = call_open(call_id, function_id, "remote", parent_id, method) + put_inputs(call_id, [(0, payload)])
    call = RemoteCall(call_id, frames, client.connection)
    is_answered = False
    try:
        client.open_call(call, frames)
        output = await call.pending
        is_answered = True
    finally:
        # Given up (Ctrl-C, a cancelled task): the server should drop the input now, not with our next call.
        client.close_call(call, is_prompt=not is_answered)
    check_known(output)
    return await unpack(client, output, name)


def remote_now(
    client: Client, function_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "", name: str = ""
) -> Any:
    """`remote` for a blocked thread and small values, without a coroutine: half of a small call's cost here."""
    if any(map(is_large, args)):
        return run(remote(client, function_id, args, kwargs, method, name))
    try:
        data = serialize((args, kwargs))
    except SerializationError as error:
        raise named(error, name) from error.__cause__
    if len(data) > INLINE_BYTES_MAX:
        return run(remote(client, function_id, args, kwargs, method, name))
    call_id = client.new_call_id()
    frames = remote_call(call_id, function_id, _container.calling_input_id(), data, method)
    call = RemoteCall(call_id, frames, client.connection)
    pending = call.pending
    is_answered = False
    try:
        client.open_call(call, frames)
        pending.block()
        output = pending.result()
        is_answered = True
    finally:
        client.close_call(call, is_prompt=not is_answered)
    if output.status == SUCCEEDED and not output.blob_sha256 and not (_shown.displays and _shown.is_behind()):
        try:
            return deserialize(output.value)
        except DeserializationError as error:
            raise named(error, name) from error.__cause__
    check_known(output)
    return run(unpack(client, output, name))


async def generator_call(
    client: Client, function_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = "", name: str = ""
) -> GeneratorCall:
    """A call of a generator function, for `items_of`."""
    parent_id = parent_input_id()
    payload = await pack(client, args, kwargs, name)
    return GeneratorCall(client.new_call_id(), function_id, parent_id, payload, client.connection, method)


async def items_of(client: Client, call: GeneratorCall) -> AsyncGenerator[Any, None]:
    """Make the call and yield its items as they come; raises as `remote`."""
    client.open_call(call, call.frames())
    taken = uncredited = 0
    try:
        while True:
            while call.items:
                value, blob_sha256 = call.items.popleft()
                taken += 1
                uncredited += 1
                if uncredited >= ITEM_CREDIT_STEP:
                    client.send_more(call.credit(uncredited))
                    uncredited = 0
                if _shown.displays:
                    await _shown.catch_up()
                yield deserialize(await _blob.get(client, blob_sha256) if blob_sha256 else value)
            if call.error is not None:
                raise call.error
            # The last items come before the output does, and are put where they are looked for before it is.
            if call.output is not None and not call.items:
                if call.output.status != SUCCEEDED:
                    check_known(call.output)
                    await unpack(client, call.output)
                if taken < int(call.output.value or b"0"):
                    raise InternalFailure(
                        f"only {taken} of {int(call.output.value)} items came; call the generator again"
                    )
                return
            signal = call.arm()
            if not call.items and call.output is None and call.error is None:
                await signal
    finally:
        client.close_call(call, is_prompt=call.output is None)
