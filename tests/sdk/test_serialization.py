"""Values and exceptions as bytes; scripts whose classes are of another module over there."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import DeserializationError, ExecutionError, FunctionTimeoutError, RemoteError, SerializationError
from squall.protocol.call import Failure, decode_failure, encode_failure
from squall.sdk._failure import to_exception
from squall.sdk._serialization import deserialize, encode_exception, serialize


@pytest.mark.parametrize("value", [1, "x", b"\0", None, [1, {"a": (2, 3)}], {"__main__": 1}])
def test_plain_values_come_back(value: Any) -> None:
    assert deserialize(serialize(value)) == value


def test_lambdas_and_closures_come_back() -> None:
    offset = 5

    assert deserialize(serialize(lambda x: x + offset))(2) == 7


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SerializationError, match="cannot pickle generator"):
        serialize(x for x in [1])


def test_a_missing_module_is_named() -> None:
    module = types.ModuleType("ghost_module")
    module.Ghost = type("Ghost", (), {"__module__": "ghost_module"})  # type: ignore[attr-defined]
    sys.modules["ghost_module"] = module
    data = serialize(module.Ghost())
    del sys.modules["ghost_module"]

    with pytest.raises(DeserializationError, match="needs the module 'ghost_module'"):
        deserialize(data)


def test_an_exception_whose_class_is_missing_is_described() -> None:
    module = types.ModuleType("ghost_errors")
    module.GhostError = type("GhostError", (Exception,), {"__module__": "ghost_errors"})  # type: ignore[attr-defined]
    sys.modules["ghost_errors"] = module
    data = encode_exception(module.GhostError("gone wrong"), "ct-1")
    del sys.modules["ghost_errors"]

    error = to_exception(data)

    assert isinstance(error, ExecutionError)
    assert "GhostError: gone wrong" in str(error)
    assert "ghost_errors" in str(error)


def test_an_exception_that_cannot_be_pickled_keeps_its_message() -> None:
    error = ValueError("with a generator")
    error.generator = (x for x in [1])  # type: ignore[attr-defined]

    found = to_exception(encode_exception(error, "ct-1"))

    assert isinstance(found, RemoteError)
    assert "ValueError: with a generator" in str(found)


def test_remote_frames_are_printed_with_their_source(tmp_path: Path) -> None:
    code = tmp_path / "user.py"
    code.write_text("def inner():\n    raise KeyError('deep')\n\ndef outer():\n    inner()\n")
    space: dict[str, Any] = {}
    exec(compile(code.read_text(), str(code), "exec"), space)
    try:
        space["outer"]()
    except KeyError as error:
        data = encode_exception(error, "ct-7", skip_until=str(tmp_path))
    code.unlink()

    found = to_exception(data)

    text = "".join(traceback.format_exception(type(found), found, found.__traceback__))
    assert f'File "<ct-7>:{code}", line 5, in outer\n    inner()\n' in text
    assert f"File \"<ct-7>:{code}\", line 2, in inner\n    raise KeyError('deep')\n" in text
    assert "test_serialization.py" not in text


def test_frames_before_user_code_are_left_out() -> None:
    try:
        deserialize(b"no pickle")
    except DeserializationError as error:
        failure, _ = decode_failure(encode_exception(error))

    assert failure.kind == "unserializable"
    assert failure.frames[0].file == __file__


def test_kinds_of_failures_become_exceptions_of_ours() -> None:
    error = to_exception(encode_failure(Failure("timed_out", "ran longer than 3 s", container_id="ct-9")))

    assert isinstance(error, FunctionTimeoutError)
    assert "ran longer than 3 s" in str(error)
    assert "ct-9" in str(error)


def test_a_broken_failure_is_still_an_exception() -> None:
    assert isinstance(to_exception(b"nonsense"), RemoteError)


SCRIPT = """
import sys
import squall
from squall.sdk._serialization import deserialize, serialize

app = squall.App("script")

class Point:
    class Inner:
        pass

    def __init__(self, x):
        self.x = x

def double(x):
    return 2 * x

@app.function()
def move(point):
    assert isinstance(point, Point)
    return Point(point.x + 1)

def main():
    sent = serialize(((Point(1), Point, Point.Inner(), double, [Point(2)]), {}))
    sys.stdout.buffer.write(sent.hex().encode() + b"\\n")
    sys.stdout.flush()
    answer = deserialize(bytes.fromhex(sys.stdin.readline()))
    assert type(answer) is Point, type(answer)
    assert answer.x == 2
    print("ok")

if __name__ == "__main__":
    main()
"""

CONTAINER = """
import sys
from squall.sdk._serialization import deserialize, serialize
import script
(point, cls, inner, double, points), _ = deserialize(bytes.fromhex(sys.argv[1]))
assert type(point) is script.Point and cls is script.Point and type(inner) is script.Point.Inner
assert double is script.double and double(4) == 8
print(serialize(script.move.raw_f(point)).hex())
"""


def test_a_scripts_classes_are_its_modules_in_the_container(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    env = {**os.environ, "PYTHONPATH": str(Path(squall.__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        sent = script.stdout.readline().strip()

        answer = subprocess.run(
            [sys.executable, "-c", CONTAINER, sent],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert answer.returncode == 0, answer.stderr
        script.stdin.write(answer.stdout)
        script.stdin.flush()
        assert script.stdout.readline() == "ok\n"
