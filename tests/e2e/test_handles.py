"""What programs ask handles for: environments, what was asked before, versions, and ends, with a real server."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, wait_until

PROGRAM = """
import time
import squall

app = squall.App({name!r})

@app.function(max_containers=1, timeout={timeout})
def nap(seconds: float = 0.0) -> str:
    print("napping", {code!r}, flush=True)
    time.sleep(seconds)
    return squall.current_input_id()

@app.cls(timeout=100)
class Teller:
    @squall.method()
    def tell(self) -> str:
        return {code!r}
"""


def deploy(squall: Installation, folder: Path, name: str, code: str, timeout_s: int = 100) -> None:
    path = folder / "handled.py"
    path.write_text(PROGRAM.format(name=name, code=code, timeout=timeout_s))
    ended = squall.command("deploy", str(path), timeout_s=120)
    assert ended.code == 0, ended


def python(squall: Installation, program: str) -> list[str]:
    """What a program prints, of its own process."""
    ended = subprocess.run(
        [sys.executable, "-c", program], env=squall.environ(), capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.fixture
def deployed(squall: Installation, tmp_path: Path) -> Iterator[str]:
    """An app of two versions."""
    name = "handles"
    deploy(squall, tmp_path, name, "one")
    deploy(squall, tmp_path, name, "two")
    yield name
    squall.command("app", "stop", name, "--yes")


ENVIRONMENTS = """
import squall

Environment = squall.Environment
names = lambda: [one.name for one in Environment.objects.list()]
Environment.objects.create("first")
Environment.from_name("second", create_if_missing=True).hydrate()
Environment.from_name("second", create_if_missing=True).hydrate()
print(names())

def refused(kind, ask):
    try:
        ask()
    except kind as error:
        print(kind.__name__, "first" in str(error) or "third" in str(error) or "users and roles" in str(error))

refused(squall.exception.AlreadyExistsError, lambda: Environment.objects.create("first"))
refused(squall.exception.NotFoundError, lambda: Environment.from_name("third").hydrate())
refused(squall.exception.NotFoundError, lambda: Environment.objects.delete("third"))
refused(squall.exception.InvalidError, lambda: Environment.objects.create("third", restricted=True))
refused(squall.exception.InvalidError, lambda: Environment.objects.create("third", default_role="viewer"))
Environment.objects.delete("first")
Environment.objects.delete("second")
print(names())
"""


def test_environments_are_made_listed_and_deleted(squall: Installation) -> None:
    refused = ["AlreadyExistsError True", "NotFoundError True", "NotFoundError True", *["InvalidError True"] * 2]

    assert python(squall, ENVIRONMENTS) == ["['main', 'first', 'second']", *refused, "['main']"]


ASKED_BEFORE = """
import sys
import squall

app, nap = squall.App.lookup({name!r}), squall.Function.from_name({name!r}, "nap")
tell = lambda **how: print(app.info(**how).lifecycle.version, nap.info(**how).timeout, flush=True)
tell()
print("ready", flush=True)
sys.stdin.readline()
tell()
tell(refresh=True)
tell()
"""


@pytest.mark.timeout(200)
def test_info_is_what_was_asked_first_until_it_is_asked_again(
    squall: Installation, deployed: str, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ASKED_BEFORE.format(name=deployed)], env=squall.environ(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as asking:  # fmt: skip
        assert asking.stdout is not None
        assert [asking.stdout.readline() for _ in range(2)] == ["2 100\n", "ready\n"]
        deploy(squall, tmp_path, deployed, "three", timeout_s=50)
        rest, _ = asking.communicate("\n", timeout=60)

    assert rest.splitlines() == ["2 100", "3 50", "3 50"]


CLASS_OF_A_VERSION = """
import squall

Cls = squall.Cls.from_name
print([Cls({name!r}, "Teller", version=number)().tell.remote() for number in (1, None, 2)])
try:
    Cls({name!r}, "Teller", version=9)().tell.remote()
except squall.exception.NotFoundError as error:
    print("version" in str(error))
"""


def test_a_class_is_held_to_a_version(squall: Installation, deployed: str) -> None:
    assert python(squall, CLASS_OF_A_VERSION.format(name=deployed)) == ["['one', 'two', 'two']", "True"]


CANCELLED = """
import time
import squall

nap = squall.Function.from_name({name!r}, "nap")
call = nap.spawn(60.0)
while not nap.get_current_stats().num_running_inputs:
    time.sleep(0.1)
call.cancel(terminate_containers={is_killing})
try:
    call.get(timeout=30)
except squall.exception.Error as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("is_killing", [False, True])
def test_cancel_ends_containers_when_it_is_asked_to(squall: Installation, deployed: str, is_killing: bool) -> None:
    python(squall, f"import squall; squall.Function.from_name({deployed!r}, 'nap').remote()")
    before = {one["container_id"] for one in squall.containers() if one["function"] == "nap"}

    python(squall, CANCELLED.format(name=deployed, is_killing=is_killing))

    def is_there() -> bool:
        return bool(before & {one["container_id"] for one in squall.containers() if one["function"] == "nap"})

    if is_killing:
        wait_until(lambda: not is_there(), "its container is ended", 10)
    else:
        assert is_there(), "code that heeds a cancel keeps its container"


def test_a_container_that_is_stopped_gracefully_finishes_its_input(squall: Installation, deployed: str) -> None:
    spawn = f"import squall; print(squall.Function.from_name({deployed!r}, 'nap').spawn(6.0).object_id)"
    call_id = python(squall, spawn)[0]

    def busy() -> list[str]:
        return [
            one["container_id"] for one in squall.containers() if (one["function"], one["state"]) == ("nap", "busy")
        ]

    wait_until(lambda: bool(busy()), "it runs", 20)
    (container_id,) = busy()
    ended = squall.command("container", "stop", container_id, "--graceful", "--yes")
    found = f"call = squall.FunctionCall.from_id({call_id!r}); result = call.get(timeout=60)"
    lines = "[entry.message for entry in call.logs.fetch()]"
    told = python(squall, f"import squall; {found}; print(result, {lines})")

    assert ended.code == 0, ended
    assert told == [f"in-{call_id[3:]}:0 ['napping two']"], "it began once, and finished"
    wait_until(lambda: container_id not in [one["container_id"] for one in squall.containers()], "it has ended", 10)


def test_a_deploy_shows_what_is_printed_from_then_on(squall: Installation, deployed: str, tmp_path: Path) -> None:
    path = tmp_path / "handled.py"
    path.write_text(PROGRAM.format(name=deployed, code="three", timeout=100))
    following = squall.start("deploy", str(path), "--stream-logs", "--timestamps")
    following.wait_said("App deployed in", 60)
    wait_until(lambda: _called(squall, deployed) and "napping three" in following.said(), "its lines are shown", 30)
    following.signal(signal.SIGINT)
    ended = following.wait(20)

    lines = [line for line in ended.out.splitlines() if "napping" in line]
    assert all(line.endswith("napping three") and line[:2] == "20" for line in lines), lines
    assert ended.code in (0, 130), ended


def _called(squall: Installation, name: str) -> bool:
    return bool(python(squall, f"import squall; print(squall.Function.from_name({name!r}, 'nap').remote())"))


LINES_OF_A_CALL = """
import datetime
import squall

nap = squall.Function.from_name({name!r}, "nap")
call = nap.spawn(0.0)
call.get()
lines = lambda **window: [entry.message for entry in call.logs.fetch(**window)]
print(lines())
later = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=1)
print(lines(since=later, until=later + datetime.timedelta(hours=1)))
"""


def test_lines_of_a_call_are_fetched_from_its_beginning(squall: Installation, deployed: str) -> None:
    assert python(squall, LINES_OF_A_CALL.format(name=deployed)) == ["['napping two']", "[]"]
