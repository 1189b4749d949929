"""Get hold of the function that this container is for.

By file and by package: import the module, look the name up. Serialized: unpickle. What goes wrong here is shown with
the user's own traceback and, for a missing package, with what to add to the image.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from squall.guest.inbox import Stopping
from squall.guest.web.specs import is_web
from squall.protocol.call import Failure, TraceFrame
from squall.protocol.function import SERIALIZED
from squall.protocol.guest import CODE_DIR, Boot
from squall.sdk import _container
from squall.sdk._serialization import deserialize, trace_frames, trimmed

if TYPE_CHECKING:
    from squall.guest.instance import Instance


class LoadFailed(Exception):
    """The function cannot be loaded; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class EnterFailed(LoadFailed):
    """An enter hook has raised; `pickled` is what."""

    def __init__(self, failure: Failure, pickled: bytes) -> None:
        super().__init__(failure)
        self.pickled = pickled


class Served(NamedTuple):
    """What a container serves."""

    function: Callable[..., Any]
    """Of a class one of its methods, the only one where inputs come in batches."""
    instance: Instance | None = None
    """Of a class: whose methods are run."""
    import_ms: float = 0.0
    enter_ms: float = 0.0
    """How long the hooks have run that a snapshot keeps."""
    is_web: bool = False
    """Its inputs, or some of them, are requests."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left that could fail before it takes inputs."""
        return not self.is_web and (self.instance is None or not self.instance.has_late_hooks)

    def taken_over(self, started: float) -> Served:
        """The same in a fork, for which it has cost what has passed since it `started`."""
        if self.instance is not None:
            self.instance.taken_over()
            _container.loaded()
        return self._replace(import_ms=(time.monotonic() - started) * 1000, enter_ms=0.0)


def load_served(boot: Boot, started: float) -> Served:
    """Go as far as a snapshot can: load the function, or make the instance and run its hooks with `snap=True`.

    Raises:
        LoadFailed: whatever the reason, user code's included.
        Stopping: the guest was told to end meanwhile, which is no fault of the function.
    """
    if not boot.definition.is_class:
        function = load(boot, _container.get_blob)
        return Served(function, None, (time.monotonic() - started) * 1000, is_web=is_web(boot))
    instance = load_instance(boot, _container.get_blob)
    # From here on its hooks may call functions.
    _container.loaded()
    loaded = time.monotonic()
    instance.enter_before_snapshot()
    enter_ms = (time.monotonic() - loaded) * 1000
    # An app's server has none.
    function = next((one.function for one in instance.methods.values()), _none)
    return Served(function, instance, (loaded - started) * 1000, enter_ms, is_web(boot))


def _none() -> None:
    """In the place of a function that is never called."""


def load(boot: Boot, get_blob: Callable[[str], list[bytes]]) -> Callable[..., Any]:
    """The callable of the container's function.

    Raises:
        LoadFailed: whatever the reason, user code's included.
        Stopping: the guest was told to end meanwhile, which is no fault of the function.
    """
    function = _load(boot, get_blob, _container.unwrap)
    if not callable(function):
        message = f"cannot load function {boot.function_name}: {describe_missing(boot)} is no function"
        raise LoadFailed(Failure("import", message, container_id=boot.container_id))
    return cast("Callable[..., Any]", function)


def load_instance(boot: Boot, get_blob: Callable[[str], list[bytes]]) -> Instance:
    """The instance of the container's class; no hook has run.

    Raises:
        LoadFailed, Stopping: as `load`.
    """
    from squall.guest.instance import Instance  # cold start: classes only

    return cast("Instance", _load(boot, get_blob, lambda found: Instance(boot, found)))


def describe_missing(boot: Boot) -> str:
    """Where something should have been that can be run."""
    return f"{boot.definition.module}.{boot.definition.qualname}"


def _load(boot: Boot, get_blob: Callable[[str], list[bytes]], take: Callable[[Any], Any]) -> Any:
    definition = boot.definition
    try:
        if definition.kind == SERIALIZED:
            _check_python(boot)
            found: Any = deserialize(get_blob(definition.blob_sha256))
        else:
            found = importlib.import_module(definition.module)
            for name in definition.qualname.split("."):
                found = getattr(found, name)
        # Raises what `Image.imports` held back, if this container runs that image.
        return take(found)
    except (LoadFailed, Stopping):
        raise
    except BaseException as error:
        raise LoadFailed(_failure(boot, error)) from error


def _check_python(boot: Boot) -> None:
    wanted = boot.definition.python_version
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if wanted and wanted != here:
        raise LoadFailed(
            Failure(
                "import",
                f"cannot load function {boot.function_name}: it was serialized by Python {wanted} and the image has"
                f" {here}; use an image with Python {wanted}, such as Image.debian_slim(python_version={wanted!r})",
                container_id=boot.container_id,
            )
        )


def _failure(boot: Boot, error: BaseException) -> Failure:
    from squall.sdk._traceback import format_for_user  # cold start: only when something failed

    frames = trace_frames(error, skip_until=CODE_DIR)
    return Failure(
        kind="import",
        message=trimmed(f"cannot load function {boot.function_name}: {_describe(error)}"),
        type_name=type(error).__name__,
        traceback=trimmed(format_for_user(error)),
        frames=tuple(TraceFrame(frame.file, frame.line, frame.name, frame.text) for frame in frames),
        container_id=boot.container_id,
    )


def _describe(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"{error}. {_what_to_add(error.name)}"
    if isinstance(error, SyntaxError):
        return f"syntax error: {error}"
    return f"{type(error).__name__}: {error}"


def _what_to_add(module_name: str) -> str:
    package = module_name.partition(".")[0]
    return (
        f"The image has no package {package!r}: add it with image.pip_install({package!r}), or, if it is"
        f" code of yours, with image.add_local_python_source({package!r})"
    )


def note_missing_package(error: BaseException) -> None:
    """Say on the error of an import inside a function what the image lacks."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or hasattr(error, "__notes__"):
        return
    import importlib.util  # cold start: only when something failed

    package = error.name.partition(".")[0]
    # An installed package without the module of that name is not helped by installing it.
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        return
    # As add_note() does, which Python 3.10 does not have; there the caller may still be newer.
    error.__dict__["__notes__"] = [_what_to_add(error.name)]
