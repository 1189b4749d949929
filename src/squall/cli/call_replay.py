"""`squall call replay`: a kept input, run once more in a container or in this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any

import click

from squall.cli import reference, result_view
from squall.cli.run import reported
from squall.cli.server_calls import ask, ask_pages, is_terminal
from squall.cli.target import listed
from squall.exception import InvalidError
from squall.protocol.app import (
    EPHEMERAL,
    STOPPED,
    STOPPING,
    AppCreate,
    AppCreated,
    AppGet,
    AppInfo,
    AppStop,
    AppStopped,
)
from squall.protocol.call import CANCELLED, STATUS_NAMES, CallSpawned
from squall.protocol.flight import INPUTS_SHOWN_MAX, CallFlight, CallInput, CallInputGet, CallReplay, CallShow
from squall.protocol.function import (
    SERIALIZED,
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionList,
    FunctionListing,
    FunctionSpec,
)
from squall.protocol.ids import function_id as function_id_of
from squall.protocol.ids import input_id, new_id
from squall.protocol.log import LogEntry
from squall.protocol.parameters import decode
from squall.protocol.records import replace
from squall.sdk import _blob, _client, _container, _durable, _invoke, _output
from squall.sdk._calls import GeneratorCall, Payload
from squall.sdk._pending import run
from squall.sdk._serialization import deserialize
from squall.sdk._traceback import is_ours
from squall.sdk.cls import Cls

FAILED_SHOWN = 20
"""Inputs of a call to choose from, in a message."""
CLOCKS_S = 5.0
"""Lines are looked for from so long before the replay was asked for: their times are those of another clock."""


def chosen_index(call_id: str) -> int:
    """The input that is meant when none is named: the only one, or the only one that failed.

    Raises:
        click.UsageError: there is a choice to make; the message lists some.
    """
    flight = ask("CallShow", CallShow(call_id, limit=INPUTS_SHOWN_MAX, is_failed=True), CallFlight)
    count = flight.summary.input_count
    if count <= 1:
        return 0
    failed = [one for one in flight.inputs if one.status != STATUS_NAMES[CANCELLED]]
    kept = [one.index for one in failed if one.is_kept] or [one.index for one in failed]
    if len(kept) == 1:
        click.echo(f"Input {kept[0]} is the one of {count:,} that failed.", err=True)
        return kept[0]
    if not kept:
        raise click.UsageError(f"call {call_id} has {count:,} inputs, of which none failed; name one with --index")
    listed_ones = listed([str(index) for index in kept], FAILED_SHOWN)
    raise click.UsageError(
        f"{flight.summary.failed_count:,} inputs of call {call_id} failed; name one, as in --index {kept[0]}:"
        f" {listed_ones}. `squall call show {call_id} --failed` says how"
    )


# In a container


def run_in_container(call_id: str, index: int) -> None:
    """Run the input in a container and show its lines and result; what it raises ends the command with code 1."""
    kept, spec = _origin(call_id, index)
    new_call_id = new_id("fc")
    client = _client.current()
    output = _LinesOf(input_id(new_call_id, 0))
    with _output.use(output), reported(), _app_of(spec) as (app_id, function_id):
        since = time.time() - CLOCKS_S  # tidy: lines are stamped with the time of day
        follower = _output.LogFollower(client, app_id, output, since)
        try:
            if _is_generator(spec, kept.method):
                value = None
                run(_show_items(client, _generator_call(client, kept, new_call_id, function_id)))
            else:
                ask("CallReplay", CallReplay(call_id, new_call_id, kept.index, function_id), CallSpawned)
                click.echo(f"Replays input {index} of {call_id} as {new_call_id}", err=True)
                value = run(_durable.get(client, new_call_id, 0, None))
        finally:
            follower.finish(0.0)
        if value is not None:
            result_view.show(value)


def _is_generator(spec: FunctionSpec, method: str) -> bool:
    definition = spec.definition
    if not definition.is_class:
        return definition.is_generator
    return any(one.name == method and one.is_generator for one in definition.methods)


def _generator_call(client: _client.Client, kept: CallInput, new_call_id: str, function_id: str) -> GeneratorCall:
    """The kept input as a call of this process: a generator has nothing to give to who is not there."""
    body = b"" if kept.blob_sha256 else run(_kept_value(client, kept.call_id, kept.index))
    payload = Payload(body, kept.blob_sha256)
    click.echo(f"Replays input {kept.index} of {kept.call_id} as {new_call_id}", err=True)
    return GeneratorCall(new_call_id, function_id, "", payload, client.connection, kept.method)


async def _show_items(client: _client.Client, call: GeneratorCall) -> None:
    async for item in _invoke.items_of(client, call):
        result_view.show(item)


class _LinesOf(_output.PlainOutput):
    """Shows the lines of one input."""

    def __init__(self, one: str) -> None:
        super().__init__()
        self._input_id = one

    def log(self, entry: LogEntry) -> None:
        """See `Output`."""
        if entry.input_id == self._input_id:
            super().log(entry)


def _origin(call_id: str, index: int) -> tuple[CallInput, FunctionSpec]:
    kept = ask("CallInputGet", CallInputGet(call_id, index), CallInput)
    return kept, ask("FunctionGet", FunctionGet(function_id=kept.function_id, has_env=True), FunctionSpec)


@contextmanager
def _app_of(spec: FunctionSpec) -> Iterator[tuple[str, str]]:
    """The app and the function to run it by: its own, or while the block runs one made like it."""
    app = ask("AppGet", AppGet(spec.app_id, has_functions=False), AppInfo)
    if app.state not in (STOPPED, STOPPING):
        yield app.app_id, spec.function_id
        return
    app_id = new_id("ap")
    client = _client.current()
    record = AppCreate(app_id, f"replay of {app.name or app.app_id}"[:64], EPHEMERAL)
    ask("AppCreate", record, AppCreated)
    try:
        client.keep_app(record)
        pieces, function_id = [], ""
        # All functions of the app: this one may call the others.
        for some in _functions_of(app.app_id):
            pieces.append(FunctionCreate(tuple(_made_for(app_id, one) for one in some)))
            ask("FunctionCreate", pieces[-1], FunctionCreated)
            wanted = [one for one in some if one.function_id == (spec.variant_of or spec.function_id)]
            function_id = function_id_of(app_id, wanted[0].name) if wanted else function_id
        client.keep_app(record, tuple(pieces))
        if spec.variant_of:
            asked = FunctionBind(function_id, spec.parameters, spec.options)
            function_id = ask("FunctionBind", asked, FunctionBound).function_id
        yield app_id, function_id
    finally:
        client.drop_app(app_id)
        ask("AppStop", AppStop(app_id, "its replay has ended"), AppStopped)


def _functions_of(app_id: str) -> Iterator[tuple[FunctionSpec, ...]]:
    """An app's functions, some at a time: one frame does not take them all."""
    for page in ask_pages("FunctionList", FunctionList(app_id, has_env=True), FunctionListing):
        if page.functions:
            yield page.functions


def _made_for(app_id: str, spec: FunctionSpec) -> FunctionSpec:
    """The function in another app, where nothing runs by itself, or is found by requests."""
    function_id = function_id_of(app_id, spec.name)
    scaling = replace(spec.scaling, min_containers=0, buffer_containers=0)
    methods = tuple(replace(one, web=None) for one in spec.definition.methods)
    return replace(
        spec,
        app_id=app_id,
        function_id=function_id,
        definition=replace(spec.definition, methods=methods),
        schedule=None,
        scaling=scaling,
        version=0,
        web=None,
    )


# Here


def run_here(call_id: str, index: int, path: str) -> None:
    """Run the raw function here, on the kept arguments; when it raises, the debugger opens where it did."""
    kept, spec = _origin(call_id, index)
    client = _client.current()
    value: Any = run(_kept_value(client, call_id, index))
    # The module first: arguments may be of its classes.
    function = _callable(spec, kept.method, path)
    args, kwargs = deserialize(value)
    is_batched = spec.batching is not None
    if is_batched:
        # A batch of one: a list for each parameter, and a list of results.
        args, kwargs = tuple([one] for one in args), {name: [one] for name, one in kwargs.items()}
    try:
        returned = _finished(function(*args, **kwargs))
        if is_batched:
            returned = _only_result(spec.name, returned)
    except BaseException as error:
        # Ctrl-C and leaving the debugger are the user's.
        if type(error).__name__ == "BdbQuit" or isinstance(error, KeyboardInterrupt):
            raise click.exceptions.Exit(1) from error
        reference.show_user_traceback(error)
        if is_terminal():
            import pdb  # cold start: when it failed

            pdb.post_mortem(_without_ours(error.__traceback__))
        raise click.exceptions.Exit(1) from error
    if returned is not None:
        result_view.show(returned)


async def _kept_value(client: _client.Client, call_id: str, index: int) -> Any:
    found, body = await client.request_with_body("CallInputGet", CallInputGet(call_id, index), CallInput)
    return await _blob.get(client, found.blob_sha256) if found.blob_sha256 else body


def _finished(returned: Any) -> Any:
    """What it gives in the end; items of a generator are shown as they come."""
    if isinstance(returned, CoroutineType):
        import asyncio  # cold start: as long as all the rest together

        return asyncio.run(returned)
    if isinstance(returned, AsyncGeneratorType):
        import asyncio  # cold start: as above

        async def show_all() -> None:
            async for item in returned:
                result_view.show(item)

        return asyncio.run(show_all())
    if isinstance(returned, GeneratorType):
        for item in returned:
            result_view.show(item)
        return None
    return returned


def _only_result(name: str, returned: Any) -> Any:
    """Of a batch of one."""
    if isinstance(returned, list) and len(returned) == 1:
        return returned[0]
    what = f"a list of {len(returned)}" if isinstance(returned, list) else type(returned).__name__
    raise InvalidError(f"function {name} is batched and returned {what} for one input; return a list of one result")


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """From the first frame of user code on."""
    found = trace
    while found is not None and is_ours(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found or trace


def _callable(spec: FunctionSpec, method: str, path: str) -> Callable[..., Any]:
    """The function as the user wrote it, from the module here.

    Raises:
        click.ClickException: it is not here.
    """
    definition = spec.definition
    if definition.kind == SERIALIZED:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if definition.python_version not in ("", here):
            what = f"function {spec.name} was pickled by Python {definition.python_version}, and this is {here}"
            raise click.ClickException(f"{what}; run this command by that one, or replay it in a container")
        found: Any = deserialize(_container.get_blob(definition.blob_sha256))
    else:
        module = reference.load(_where(definition.module, path))
        found = module
        for name in definition.qualname.split("."):
            found = getattr(found, name, None)
        if found is None:
            where = getattr(module, "__file__", definition.module)
            raise click.ClickException(f"{where} has no {definition.qualname}, which the call was of")
    if isinstance(found, Cls):
        bound = found(**decode(spec.parameters))
        local: Callable[..., Any] = getattr(bound, method).local
        return local
    return _container.unwrap(found)  # type: ignore[return-value]


def _where(module: str, path: str) -> reference.Reference:
    if path:
        return reference.parse(path, is_module=False)
    file = Path(f"{module}.py")
    if "." not in module and file.is_file():
        return reference.Reference(str(file))
    from importlib.util import find_spec  # cold start: packages only

    sys.path.insert(0, str(Path.cwd()))
    try:
        is_there = find_spec(module) is not None
    except (ImportError, ValueError):
        is_there = False
    if not is_there:
        raise click.ClickException(f"no module {module} here: go to the program's folder, or say --file path/to/it.py")
    return reference.Reference(module, is_module=True)
