"""Get hold of the function that this container is for.

By file and by package: import the module, look the name up. Serialized: unpickle. What goes wrong here is shown with
the user's own traceback and, for a missing package, with what to add to the image.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from squall.guest.inbox import Stopping
from squall.protocol.call import Failure, TraceFrame
from squall.protocol.function import SERIALIZED
from squall.protocol.guest import CODE_DIR, Boot
from squall.sdk import _container
from squall.sdk._serialization import deserialize, trace_frames


class LoadFailed(Exception):
    """The function cannot be loaded; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def load(boot: Boot, get_blob: Callable[[str], bytes]) -> Callable[..., Any]:
    """The callable of the container's function.

    Raises:
        LoadFailed: whatever the reason, user code's included.
        Stopping: the guest was told to end meanwhile, which is no fault of the function.
    """
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
        function = _container.unwrap(found)
    except (LoadFailed, Stopping):
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise LoadFailed(_failure(boot, error)) from error
    if not callable(function):
        message = f"cannot load function {boot.function_name}: {definition.module}.{definition.qualname} is no function"
        raise LoadFailed(Failure("import", message, container_id=boot.container_id))
    return function


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
    import traceback  # cold start: only when something failed

    frames = trace_frames(error, skip_until=CODE_DIR)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return Failure(
        kind="import",
        message=f"cannot load function {boot.function_name}: {_describe(error)}",
        type_name=type(error).__name__,
        traceback=text,
        frames=tuple(TraceFrame(frame.file, frame.line, frame.name, frame.text) for frame in frames),
        container_id=boot.container_id,
    )


def _describe(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return (
            f"{error}. The image has no package {package!r}: add it with image.pip_install({package!r}), or, if it is"
            f" code of yours, with image.add_local_python_source({package!r})"
        )
    if isinstance(error, SyntaxError):
        return f"syntax error: {error}"
    return f"{type(error).__name__}: {error}"
