"""What this process is: a user's program, or a container that runs one of its functions.

The guest calls `enter` before it imports the user's module, and `begin_input` and
`end_input` around each input. Everything else of the SDK asks here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

from squall.exception import InvalidError

if TYPE_CHECKING:
    from squall.protocol.guest import Boot


class ContainerState:
    """A container's identity, and how to reach its agent."""

    def __init__(self, boot: Boot, socket_path: str, token: str) -> None:
        self.boot = boot
        self.socket_path = socket_path
        self.token = token
        self.is_importing = True
        """Until the first input: `App.run` and calls at the top level of the user's module would go on without end."""
        self.running_inputs: dict[str, str] = {}

    @property
    def is_build_step(self) -> bool:
        """No agent is to be reached: this is a step of an image's build."""
        return not self.socket_path


_state: ContainerState | None = None
_input_id: ContextVar[str | None] = ContextVar("squall_input_id", default=None)
_attach: Callable[[], None] | None = None
_is_child = False
"""Whether user code of a container forked this process. It calls functions as the container does, and runs no input."""


def enter(boot: Boot, socket_path: str, token: str) -> ContainerState:
    """From now on this process is a container."""
    global _state, _is_child
    _state, _is_child = ContainerState(boot, socket_path, token), False
    return _state


def loaded() -> None:
    """The module is imported: what runs from now on may call functions, though no input has come yet."""
    if _state is not None:
        _state.is_importing = False


def leave() -> None:
    """Undo `enter`: for tests, and for children that are no container's guest."""
    global _state, _is_child
    _state, _is_child = None, False


def _forked() -> None:
    global _is_child
    _is_child = _state is not None


os.register_at_fork(after_in_child=_forked)


def is_forked() -> bool:
    """Whether user code forked this process from a container's, as Python knows: without asking the kernel."""
    return _is_child


def current() -> ContainerState | None:
    """The container this process is, or is a child of; None elsewhere."""
    return _state


def container_id() -> str:
    """The id of this container; empty anywhere else."""
    return "" if _state is None else _state.boot.container_id


def find_served(boot: Boot) -> object:
    """What the user's module calls the function that this container serves; None while it is not imported."""
    found: object = sys.modules.get(boot.definition.module)
    for part in boot.definition.qualname.split(".") if found is not None else ():
        found = getattr(found, part, None)
    return found


def begin_input(input_id: str, call_id: str) -> Token[str | None]:
    """An input begins, in the context (thread or asyncio task) that runs it; give the result to `end_input`."""
    state = _state
    if state is not None:
        state.is_importing = False
        state.running_inputs[input_id] = call_id
    return _input_id.set(input_id)


def end_input(token: Token[str | None]) -> None:
    """Undo `begin_input`."""
    input_id = _input_id.get()
    if _state is not None and input_id is not None:
        _state.running_inputs.pop(input_id, None)
    _input_id.reset(token)


def unwrap(found: object) -> object:
    """The user's own callable behind a decorated one."""
    return getattr(found, "raw_f", found)


def get_blob(sha256: str) -> list[bytes]:
    """The bytes of a blob, in pieces."""
    from squall.sdk import _blob, _client  # cold start: most containers never see a large value
    from squall.sdk._pending import run  # cold start: as above

    return run(_blob.get(_client.current(), sha256))


def put_blob(data: bytes | list[bytes]) -> str:
    """Store bytes, whole or in pieces; returns their hash."""
    from squall.sdk import _blob, _client  # cold start: most containers never see a large value
    from squall.sdk._pending import run  # cold start: as above

    return run(_blob.put(_client.current(), data))


def set_interact(attach: Callable[[], None]) -> None:
    """How this container gets hold of the client's terminal."""
    global _attach
    _attach = attach


def interact() -> None:
    """Attach this container's standard streams to the terminal of `squall run -i`.

    Raises:
        InvalidError: this is no container, or its app was not run with `-i`.
    """
    if _attach is None:
        where = "outside a container" if _state is None else "without a terminal"
        raise InvalidError(f"interact() {where}: it works in functions of an app started by `squall run -i`")
    _attach()


def is_local() -> bool:
    """False in the process that runs a function in a container, True anywhere else, in its child processes as well."""
    return _state is None or _is_child


def current_input_id() -> str | None:
    """The id of the input being run, or None outside a container, and in child processes.

    In a thread that the user's function started itself it is known as long as only one input runs.
    """
    return None if _is_child else running_input_id()


def running_input_id() -> str | None:
    """The same; in a child process that of the input that forked it, as which its lines and calls count."""
    input_id = _input_id.get()
    if input_id is None and _state is not None and len(_state.running_inputs) == 1:
        try:
            return next(iter(_state.running_inputs))
        except (StopIteration, RuntimeError):
            return None  # it ended just now
    return input_id


def calling_input_id() -> str:
    """The id of the input that a call is made from now, or empty.

    Raises:
        InvalidError: this container has run nothing yet: it still imports the module of its function.
    """
    input_id = running_input_id()
    if input_id is None:
        if _state is not None and _state.is_importing:
            raise InvalidError(
                "a call of a function at the top level of a module that a container imports: each would start "
                "the next one without end; put it below `if __name__ == '__main__':`, into a function or a "
                "local entrypoint"
            )
        return ""
    return input_id


def current_function_call_id() -> str | None:
    """The id of the call that the input being run belongs to, or None where there is no `current_input_id`."""
    input_id = current_input_id()
    if input_id is None:
        return None
    return "fc-" + input_id[3:].partition(":")[0]
