"""Functions of image builds: what they travel as, when they run again, and which cannot."""

from __future__ import annotations

import datetime
import enum
import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.image import CALL_PATH
from squall.sdk._image_steps import Step, flat
from squall.sdk._serialization import deserialize

BASE = squall.Image.debian_slim("3.11")
MODEL = "small"
NAMES = {"one", "two", "three"}
UNUSED = 1


class Named(NamedTuple):
    one: int
    two: int


class Names(set[str]):
    """A class made of one whose items have no order."""


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


class Odd:
    """Cannot be pickled in a way of its own."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not this")


class Setting:
    def __init__(self, value: object) -> None:
        self.value = value

    def method(self) -> None:
        """Of an object."""


def fetch(name: str = "", size: int = 0, **more: object) -> str:
    return MODEL + name


def other() -> int:
    return UNUSED


def counting() -> Iterator[int]:
    yield 1


async def counting_later() -> AsyncIterator[int]:
    yield 1


def with_names() -> object:
    return sorted(NAMES)


def made(version: object, default: object = 0) -> Callable[[], object]:
    def inner(again: object = default) -> object:
        return version, again

    return inner


def step_of(function: Callable[..., Any], **options: Any) -> Step:
    (step,) = flat(BASE.run_function(function, **options).steps)[1:]
    return step


def digest(function: Callable[..., Any] = fetch, **options: Any) -> str:
    return str(step_of(function, **options).arguments["digest"])


def travels(step: Step) -> tuple[list[str], dict[str, Any], bytes]:
    """The paths of its files besides the call, the call's header, and what follows that."""
    assert step.files is not None
    mount = step.files()
    paths = {file.path: file.sha256 for file in mount.manifest.files}
    call = mount.contents[paths.pop(CALL_PATH)]
    header, _, rest = call.partition(b"\n")
    return sorted(paths), json.loads(header), rest


def test_a_function_of_a_package_travels_with_it() -> None:
    paths, header, rest = travels(step_of(fetch, args=("m",), kwargs={"size": 2}))

    assert header["kind"] == "package"
    # Which package it is of, the way the tests are started says.
    assert header["module"] == __name__
    assert header["qualname"] == "fetch"
    assert f"root/{__name__.replace('.', '/')}.py" in paths
    assert deserialize([rest]) == (("m",), {"size": 2})


def test_a_function_of_a_script_travels_with_that_file_alone(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text(
        "import squall\n"
        "from squall.sdk._image_steps import flat\n"
        "def fetch(): pass\n"
        "step = flat(squall.Image.debian_slim('3.11').run_function(fetch).steps)[1]\n"
        "print(*sorted(file.path for file in step.files().manifest.files))\n"
    )

    printed = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout

    assert printed.split() == sorted(["root/build.py", CALL_PATH])


def test_no_source_travels_that_is_not_to() -> None:
    paths, header, _ = travels(step_of(fetch, include_source=False))

    assert paths == []
    assert header["kind"] == "package"


@pytest.mark.parametrize("function", [made(1), lambda: None], ids=["inner", "nameless"])
def test_what_cannot_be_imported_travels_by_value(function: Callable[..., Any]) -> None:
    paths, header, rest = travels(step_of(function))

    assert paths == []
    assert header["kind"] == "serialized"
    assert header["python_version"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert callable(deserialize([rest[: header["function_bytes"]]]))


def test_a_decorated_function_is_called_itself() -> None:
    app = squall.App("x")
    function = app.function(image=BASE)(fetch)

    assert travels(step_of(function))[1]["qualname"] == "fetch"


# When it runs again


def test_it_runs_again_when_its_arguments_change() -> None:
    assert digest(args=("a",)) == digest(args=("a",))
    assert digest(args=("a",)) != digest(args=("b",))
    assert digest(args=("a",)) != digest(kwargs={"name": "a"})
    assert digest(args=([1, {"a": 2}],)) != digest(args=([1, {"a": 3}],))
    assert digest(args=([Setting(1)],)) != digest(args=([Setting(2)],))
    assert digest(args=({"x": Setting(1)},)) != digest(args=({"x": Setting(2)},))


def test_it_runs_again_when_plain_values_of_its_module_change(monkeypatch: pytest.MonkeyPatch) -> None:
    before, others = digest(), digest(other)

    monkeypatch.setattr(sys.modules[__name__], "MODEL", "large")

    assert digest() != before
    assert digest(other) == others


def test_it_runs_again_when_its_surroundings_change() -> None:
    assert digest(made(1)) == digest(made(1))
    assert digest(made(1)) != digest(made(2))
    assert digest(made(1, default=1)) != digest(made(1, default=2))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 2), [1, 2]),
        ({}, set()),
        (set(), frozenset()),
        ({1}, frozenset({1})),
        (1, True),
        (1, 1.0),
        ("1", 1),
        ("a", b"a"),
        ([[1], 2], [[1, 2]]),
        (["a, b"], ["a", "b"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (10**5000, 10**5000 + 1),
        (Path("/a"), Path("/b")),
        (Setting(1), Setting(2)),
        ({"x": [Setting({1})]}, {"x": [Setting({2})]}),
        (Named(1, 2), (1, 2)),
        (Named(1, 2), Named(1, 3)),
        (Names({"a"}), Names({"b"})),
        (Names({"a"}), {"a"}),
        (Size.SMALL, Size.LARGE),
        (re.compile("a"), re.compile("b")),
        (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
        (OrderedDict(a=1), OrderedDict(a=2)),
        (functools.partial(fetch, "a"), functools.partial(fetch, "b")),
        (fetch, other),
        (int, str),
        (made(1), made(2)),
        (lambda: 1, lambda: 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_runs_again_when_a_value_is_another(one: object, other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digest(args=(one,)) != digest(args=(other,))
    assert digest(made(one)) != digest(made(other))
    assert digest(made(1, default=one)) != digest(made(1, default=other))
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "MODEL", one)
    before = digest()
    assert digest() == before
    monkeypatch.setattr(module, "MODEL", other)
    assert digest() != before


def test_it_runs_again_when_its_code_is_another_on_the_same_line() -> None:
    one, other = (lambda: "a"), (lambda: "b")
    inner, other_inner = (lambda: lambda: "a"), (lambda: lambda: "b")

    assert digest(one) != digest(other)
    assert digest(inner) != digest(other_inner)


def test_of_what_cannot_be_taken_apart_the_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    found = []
    for value in (threading.Lock(), threading.Lock(), [threading.Lock()], Odd(), object()):
        monkeypatch.setattr(module, "MODEL", value)
        found.append(digest())

    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_values_of_squall_are_in_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    found = set()
    for value in ("a", "b"):
        monkeypatch.setattr(module, "MODEL", squall.Secret.from_dict({"TOKEN": value}))
        found.add(digest())

    assert len(found) == 1


def test_values_in_circles_and_deep_ones_have_a_digest() -> None:
    circle: list[object] = [1]
    circle.append(circle)
    setting = Setting(1)
    setting.value = setting
    often: list[object] = []
    for _ in range(200):
        often = [often, often]

    assert digest(args=(circle,)) != digest(args=(setting,))
    assert digest(args=(often,)) == digest(args=(often,))


def test_it_runs_again_when_its_limits_change() -> None:
    plain = digest()

    assert len({plain, digest(cpu=2), digest(memory=1024), digest(timeout=60), digest(include_source=False)}) == 5
    assert digest(env={"A": "b"}) == plain, "the variables are a part of the step itself"
    assert digest(force_build=True) == plain


def test_it_runs_again_when_its_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for number, text in enumerate(
        ["def f():\n    return 1\n\ndef g(): pass\n", "def f():\n    return 1\n", "def f():\n    return 2\n"]
    ):
        # Of three names, so that nothing keeps what it read of one.
        (tmp_path / f"source_{number}.py").write_text(text)
        found.append(digest(__import__(f"source_{number}").f))

    assert found[0] == found[1]
    assert found[1] != found[2]


@pytest.mark.long
def test_the_digest_is_the_same_in_every_process() -> None:
    program = (
        f"from {__name__} import Names, Setting, digest, fetch, made, with_names\n"
        "names = {'a', 'b', 'c', ('d', frozenset('xyz'))}\n"
        "print(digest(with_names), digest(args=(names,)), digest(args=(Setting(names), Names('abc'))))\n"
        "print(digest(made(Setting(names))), digest(made(lambda: 'a' in {'a', 'b', 'c'})), digest(made(fetch)))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[__name__.count(".")],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(found) == 1


# What cannot


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (7, "give it a function"),
        (Setting, "give it a function"),
        (functools.partial(fetch, "x"), "give it a function"),
        (Setting(1).method, "it is a method"),
        (counting, "it has a yield"),
        (counting_later, "it has a yield"),
    ],
)
def test_what_a_container_could_not_call_is_refused(function: Any, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        BASE.run_function(function)


def test_what_cannot_be_pickled_is_refused() -> None:
    lock = threading.Lock()

    with pytest.raises(InvalidError, match=r"run_function\(fetch\): its arguments cannot travel"):
        step_of(fetch, args=(lock,))
    with pytest.raises(InvalidError, match="cannot serialize function"):
        step_of(made(lock))


@pytest.mark.parametrize(
    "limit", [{"cpu": 0}, {"memory": -1}, {"timeout": 0}, {"timeout": True}, {"cpu": "1"}, {"timeout": 86_401}]
)
def test_impossible_limits_are_refused(limit: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=rf"run_function\({next(iter(limit))}="):
        BASE.run_function(fetch, **limit)


def test_what_is_to_come_is_refused() -> None:
    with pytest.raises(InvalidError, match="gpu= is not in this version"):
        BASE.run_function(fetch, gpu="any")
    with pytest.raises(InvalidError, match=r"Image.run_function: volumes=.* must be a squall.Volume"):
        BASE.run_function(fetch, volumes={"/x": object()})
