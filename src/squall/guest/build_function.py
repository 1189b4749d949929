"""`python -m squall.guest.build_function CALL`: run a function of the user's as a step of an image build.

The call is a file: one line of JSON that says how to get hold of the function, the function itself where it was
pickled, and the pickled arguments. What the function leaves in the file system becomes a layer of the image; its result
is of no interest.
"""

from __future__ import annotations

import json
import os
import sys

from squall.guest.loading import LoadFailed, load, note_missing_package
from squall.protocol.function import Definition
from squall.protocol.guest import Boot
from squall.sdk import _container
from squall.sdk._serialization import deserialize
from squall.sdk._traceback import format_for_user


def main(path: str) -> int:
    """Run the call; 1 with the reason on stderr when it fails."""
    with open(path, "rb") as file:
        header = json.loads(file.readline())
        pickled = file.read(header["function_bytes"])
        arguments = file.read()
    definition = Definition(header["kind"], header["module"], header["qualname"], "", header["python_version"])
    boot = Boot("", "", "", "", header["name"], definition)
    # The user's module is imported as in a container: it is one.
    _container.enter(boot, "", "")
    try:
        function = load(boot, lambda sha256: [pickled])
        args, kwargs = deserialize(arguments)
        found = function(*args, **kwargs)
        if hasattr(found, "__await__"):
            import asyncio  # cold start: most functions of builds are plain

            asyncio.run(_awaited(found))
    except LoadFailed as error:
        sys.stderr.write(f"{error.failure.traceback or ''}{error.failure.message}\n")
        return 1
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        # As Python does at the end of a program.
        sys.stderr.write(f"{error.code}\n")
        return 1
    except BaseException as error:  # noqa: BLE001 - whatever the user's code raises is the user's to read
        note_missing_package(error)
        sys.stderr.write(format_for_user(error).rstrip() + "\n")
        return 1
    return 0


async def _awaited(found: object) -> None:
    await found  # type: ignore[misc]  # whether it can be awaited has just been looked up


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: threads that user code left behind must not keep the build waiting.
    os._exit(code)
