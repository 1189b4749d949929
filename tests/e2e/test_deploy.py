"""`squall deploy` with the real command, server and containers: no request fails while versions come and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.e2e.installation import Ended, Installation, wait_until
from tests.e2e.paths import OF_QUICK_STARTS

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "calls"
PROGRAM = """
import time
import squall

app = squall.App({name!r})

@app.function(max_containers=2)
def version(seconds: float = 0.0) -> str:
    time.sleep(seconds)
    return {code!r}
"""

LOOP = """
import json, sys, threading, time
import squall

version = squall.Function.from_name({name!r}, "version")
version.hydrate()
lock = threading.Lock()
is_over = threading.Event()

def loop():
    while not is_over.is_set():
        began_at = time.time()
        try:
            got = version.remote()
        except BaseException as error:
            got = "FAILED " + repr(error)
        with lock:
            print(json.dumps([began_at, got]), flush=True)

threads = [threading.Thread(target=loop) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
is_over.set()
for thread in threads:
    thread.join()
"""


def write(folder: Path, name: str, code: str) -> Path:
    path = folder / "deployed_program.py"
    path.write_text(PROGRAM.format(name=name, code=code))
    return path


def deploy(squall: Installation, folder: Path, name: str, code: str, *options: str) -> Ended:
    ended = squall.command("deploy", *options, str(write(folder, name, code)), timeout_s=120)
    assert ended.code == 0, ended
    return ended


def python(squall: Installation, program: str, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env=squall.environ(), capture_output=True, text=True, timeout=120, check=False
    )


def stop(squall: Installation, name: str) -> None:
    ended = squall.command("app", "stop", name, "--yes")
    assert ended.code == 0, ended


@pytest.mark.timeout(200)
def test_the_example_is_called_by_name_from_another_program(squall: Installation) -> None:
    deployed = squall.command("deploy", str(EXAMPLES / "deployed.py"), timeout_s=120)
    called = python(squall, 'import squall; print(squall.Function.from_name("greeter", "greet").remote("world"))')

    assert deployed.code == 0, deployed
    assert (called.stdout, called.returncode) == ("hello world\n", 0), called.stderr
    stop(squall, "greeter")


def test_the_example_of_versions_is_held_to_and_gone_back_to(squall: Installation) -> None:
    call = "import squall; print(squall.Function.from_name('prices', 'price', environment_name='staging').remote(10))"
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "versions.py")], env=squall.environ(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    history = squall.command("app", "history", "prices", "--env", "staging", "--json")
    back = squall.command("app", "rollback", "prices", "v1", "--env", "staging", "--yes")
    called = python(squall, call)
    deleted = squall.command("environment", "delete", "staging", "--yes")

    assert ran.stdout.splitlines() == ["{'team': 'shop'}", "now: 30 in version 1: 20"], ran.stderr
    assert [one["tag"] for one in json.loads(history.out)] == ["summer", "spring"]
    assert (back.code, deleted.code) == (0, 0), back
    assert called.stdout == "20\n", called.stderr


@pytest.mark.timeout(300)
@OF_QUICK_STARTS
def test_no_request_fails_while_versions_come_and_go(squall: Installation, tmp_path: Path) -> None:
    name = "under-load"
    deploy(squall, tmp_path, name, "v1")
    with (tmp_path / "answers").open("w") as answers:
        loop = subprocess.Popen(
            [sys.executable, "-c", LOOP.format(name=name)],
            env=squall.environ(),
            stdin=subprocess.PIPE,
            stdout=answers,
            text=True,
        )
    answered: list[tuple[float, str]] = []
    try:
        wait_until(lambda: (tmp_path / "answers").read_text().count("\n") > 20, "answers", 60)
        for number, strategy in enumerate(("rolling", "recreate", "rolling", "recreate", "rolling"), start=2):
            deploy(squall, tmp_path, name, f"v{number}", "--strategy", strategy)
            answered.append((time.time(), f"v{number}"))
            time.sleep(1.0)
        back = squall.command("app", "rollback", name, "v1", "--yes")
        assert back.code == 0, back
        answered.append((time.time(), "v1"))
        time.sleep(1.0)
    finally:
        loop.communicate("", timeout=60)

    calls = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
    failed = [got for _, got in calls if got.startswith("FAILED")]
    assert not failed, failed[:3]
    assert len(calls) > 200
    # After a deploy was answered a second passed before the next one began.
    for since, code in answered:
        assert {value for began_at, value in calls if since <= began_at <= since + 0.9} == {code}
    versions = json.loads(squall.command("app", "history", name, "--json").out)
    assert [one["version"] for one in versions] == ["v7", "v6", "v5", "v4", "v3", "v2", "v1"]
    assert versions[0]["repeats"] == "v1"
    stop(squall, name)


@pytest.mark.timeout(200)
def test_long_inputs_finish_when_rolling_and_begin_again_when_recreated(squall: Installation, tmp_path: Path) -> None:
    name = "long-inputs"
    deploy(squall, tmp_path, name, "v1")
    ask = (
        "import squall, sys\n"
        f"call = squall.Function.from_name({name!r}, 'version').spawn(4.0)\n"
        "print('spawned', flush=True)\n"
        "print(call.get(timeout=60))\n"
    )
    for strategy, number, expected in (("rolling", 2, "v1"), ("recreate", 3, "v3")):
        waiting = subprocess.Popen([sys.executable, "-c", ask], env=squall.environ(), stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "spawned\n"
        wait_until(lambda: any(one["state"] == "busy" for one in squall.containers()), "a busy container", 30)
        deploy(squall, tmp_path, name, f"v{number}", "--strategy", strategy)
        out, _ = waiting.communicate(timeout=90)
        assert out == f"{expected}\n"
    stop(squall, name)


@pytest.mark.timeout(200)
def test_what_is_deployed_survives_the_server_and_is_started_again(
    make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path
) -> None:
    squall = make_installation({"SQUALL_IDLE_EXIT_S": "1"})
    name = "stays"
    path = tmp_path / "stays.py"
    path.write_text(PROGRAM.format(name=name, code="v1").replace("max_containers=2", "min_containers=1"))
    assert squall.command("deploy", str(path), timeout_s=120).code == 0
    wait_until(lambda: len(squall.containers()) == 1, "its container", 30)
    pid = squall.server_pid()
    time.sleep(4.0)
    assert squall.server_pid() == pid

    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: squall.command("app", "list", "--json").code == 0, "a list", 30)
    assert squall.command("server", "start").code == 0
    wait_until(lambda: [one["state"] for one in squall.containers()] == ["idle"], "its container", 30)

    stopped = squall.command("server", "stop")
    assert stopped.code == 0, stopped
    assert squall.command("server", "start").code == 0
    wait_until(lambda: [one["state"] for one in squall.containers()] == ["idle"], "a new container", 60)
    got = python(squall, f"import squall; print(squall.Function.from_name({name!r}, 'version').remote())")
    assert (got.stdout, got.returncode) == ("v1\n", 0), got.stderr
    stop(squall, name)


@pytest.mark.timeout(200)
def test_the_command_says_what_it_did(squall: Installation, tmp_path: Path) -> None:
    name = "talkative"
    repository = tmp_path / "repository"
    repository.mkdir()
    path = write(repository, name, "v1")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(repository)]
    subprocess.run([*git, "init", "-q", "-b", "trunk"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    first = squall.command("deploy", str(path), "--tag", "one", timeout_s=120)
    again = squall.command("deploy", str(path), timeout_s=120)
    path.write_text(PROGRAM.format(name=name, code="v2"))
    second = squall.command("deploy", str(path), timeout_s=120)
    history = squall.command("app", "history", name, "--json")
    shown = squall.command("app", "history", name)
    over = squall.command("app", "rollover", name)
    python(squall, f"import squall; squall.Function.from_name({name!r}, 'version').remote()")
    asked = squall.command("app", "rollover", name, "--strategy", "recreate")
    over_at_once = squall.command("app", "rollover", name, "--strategy", "recreate", "--yes")
    wrong = [
        squall.command("app", "history", "talkativ"),
        squall.command("app", "rollback", name, "latest"),
        squall.command("app", "rollback", name, "v9", "--yes"),
        squall.command("deploy", f"{path}::ap"),
    ]
    no = squall.command("app", "stop", name)
    python(squall, f"import squall; squall.Function.from_name({name!r}, 'version').remote()")
    recreated = squall.command("app", "rollback", name, "--strategy", "recreate")
    no_such = squall.command("app", "rollback", name, "v77", "--strategy", "recreate")
    back = squall.command("app", "rollback", name)

    assert (first.code, "App deployed in" in first.err, f"version 1 of {name}" in first.err) == (0, True, True), first
    assert f"call it by name: squall.Function.from_name({name!r}, 'version')" in first.err
    assert "by name" not in again.err + second.err
    # The server has no pages yet: its address is no link for people.
    assert "http://" not in first.err
    assert "Deployment skipped: no changes detected" in again.err
    assert f"version 2 of {name}" in second.err
    new, old = json.loads(history.out)
    assert (old["commit"], old["tag"]) == ({"sha": sha, "branch": "trunk", "is_dirty": False}, "one")
    assert new["commit"]["is_dirty"]
    assert f"{sha[:9]}+" in shown.out
    assert "version 3" in over.err
    assert (asked.code, f"End the 1 container of {name}" in asked.out + asked.err) == (1, True), asked
    assert "version 4" in over_at_once.err
    assert "did you mean 'talkative'" in wrong[0].err
    assert "names no version" in wrong[1].err
    assert "it has v4, v3, v2, v1" in wrong[2].err
    assert "did you mean 'app'" in wrong[3].err
    assert [one.code for one in wrong] == [1, 2, 1, 2]
    assert (no.code, "with --yes there is no question" in no.err) == (1, True)
    question = f"Deploy version 3 of {name} again, and end the 1 container of version 4?"
    assert (recreated.code, question in recreated.out + recreated.err) == (1, True), recreated
    assert (no_such.code, f"{name} has no version 77: it has v4, v3, v2, v1" in no_such.err) == (1, True), no_such
    assert "again" not in no_such.out + no_such.err
    assert f"Rolled back {name} to version 3, which is now version 5." in back.err
    stop(squall, name)
    for verb in ("rollback", "rollover"):
        late = squall.command("app", verb, name)
        assert (late.code, "was stopped: only a deployed app has versions" in late.err) == (1, True), late
    gone = python(squall, f"import squall; squall.Function.from_name({name!r}, 'version').remote()")
    assert "NotFoundError" in gone.stderr or "stopped" in gone.stderr


MAPS = """
import sys
import squall

version = squall.Function.from_name({name!r}, "version")
for _ in range(2):
    print(*version.map([0.0] * 500), sep="", flush=True)
    print(*version.experimental_spawn_map([0.0] * 3).iter(), sep="", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.timeout(200)
def test_map_of_a_name_goes_to_the_app_that_has_it_when_another_was_stopped(
    squall: Installation, tmp_path: Path
) -> None:
    name = "remapped"
    deploy(squall, tmp_path, name, "a")
    mapping = subprocess.Popen(
        [sys.executable, "-c", MAPS.format(name=name)],
        env=squall.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert mapping.stdin is not None
    assert mapping.stdout is not None
    first = [mapping.stdout.readline() for _ in range(2)]
    stop(squall, name)
    deploy(squall, tmp_path, name, "b")
    mapping.stdin.write("\n\n")
    rest, _ = mapping.communicate(timeout=60)

    assert [*first, *rest.splitlines(keepends=True)] == ["a" * 500 + "\n", "aaa\n", "b" * 500 + "\n", "bbb\n"]
    stop(squall, name)


IN_PROGRAM = """
import os, sys
import squall

app = squall.App({name!r}, tags={{"team": "blue"}})

@app.function()
def inner() -> str:
    return os.environ["CODE"]

@app.function()
def outer() -> str:
    return inner.remote() + ", " + inner.spawn().get()

@app.function()
def inside() -> tuple:
    return app.app_id, app.get_tags(), app.info().lifecycle.state.name, squall.Environment.from_context().name

def main():
    os.chdir({folder!r})
    for code in ("one", "two"):
        globals()["app"] = again = squall.App({name!r}, tags={{"team": "blue"}})
        made = [again.function(env={{"CODE": code}})(f.raw_f) for f in (inner, outer, inside)]
        assert again.deploy(environment_name="staging") is again
        assert made[0].remote() == code, code
    held = squall.Function.from_name({name!r}, "outer", version=1, environment_name="staging")
    current = squall.Function.from_name({name!r}, "outer", environment_name="staging")
    print(held.remote(), current.remote())
    found = squall.App.lookup({name!r}, environment_name="staging")
    found.set_tags({{"team": "red"}})
    print(found.app_id == again.app_id, again.get_tags())
    try:
        squall.App.lookup({name!r})
    except squall.exception.NotFoundError:
        empty = squall.App.lookup({name!r}, create_if_missing=True)
        print(empty.app_id == squall.App.lookup(empty.app_id).app_id != found.app_id)
        empty.stop()
    app_id, *others = made[2].remote()
    print(app_id == again.app_id, *others)
    staging = squall.Environment.from_name("staging").hydrate()
    print([one.name for one in staging.apps.list()])
    print([one.object_id == staging.object_id for one in squall.Environment.objects.list()])
    try:
        squall.Environment.objects.create("staging")
    except squall.exception.AlreadyExistsError as error:
        print(error)
    squall.Environment.from_name("staging", create_if_missing=True).hydrate()
    again.stop()

if __name__ == "__main__":
    main()
"""


@pytest.mark.timeout(200)
def test_programs_deploy_look_up_and_hold_to_versions(squall: Installation, tmp_path: Path) -> None:
    name = "from-a-program"
    path = tmp_path / "program.py"
    path.write_text(IN_PROGRAM.format(name=name, folder=str(tmp_path)))
    created = squall.command("environment", "create", "staging")

    ended = subprocess.run(
        [sys.executable, str(path)], env=squall.environ(), capture_output=True, text=True, timeout=150, check=False
    )
    listed = squall.command("environment", "list", "--json")
    deleted = squall.command("environment", "delete", "staging", "--yes")
    unknown = squall.command("app", "list", "--env", "stagin")

    assert created.code == 0, created
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "one, one two, two",
        "True {'team': 'red'}",
        "True",
        "True {'team': 'red'} DEPLOYED staging",
        f"['{name}']",
        "[False, True]",
        "cannot create the environment: there is an environment staging already",
    ]
    assert [one["name"] for one in json.loads(listed.out)] == ["main", "staging"]
    assert deleted.code == 0, deleted
    assert (unknown.code, "no environment 'stagin'" in unknown.err) == (1, True), unknown


NAMED = """
import sys
import squall

version = squall.Function.from_name({name!r}, "version")
teller = squall.Cls.from_name({name!r}, "Teller")(code="mine")

def tell(what, ask):
    try:
        print(what, ask(), flush=True)
    except squall.exception.Error as error:
        print(what, type(error).__name__, flush=True)

for line in sys.stdin:
    if line.strip() == "slow":
        tell("slow", lambda: version.remote(60.0))
        continue
    tell("remote", lambda: version.remote())
    tell("spawn", lambda: version.spawn().get())
    tell("map", lambda: list(version.map([0.0])))
    tell("method", lambda: teller.tell.remote())
    tell("stats", lambda: version.get_current_stats().backlog)
"""
TELLER = """
@app.cls()
class Teller:
    code: str = squall.parameter(default="")

    @squall.method()
    def tell(self) -> str:
        return self.code + {code!r}
"""


@pytest.mark.timeout(200)
def test_a_name_stands_for_the_app_that_runs_now(squall: Installation, tmp_path: Path) -> None:
    name = "named"

    def deploy_both(code: str) -> None:
        path = write(tmp_path, name, code)
        path.write_text(path.read_text() + TELLER.format(code=code))
        ended = squall.command("deploy", str(path), timeout_s=120)
        assert ended.code == 0, ended

    def answers(program: subprocess.Popen[str], ask: str, count: int) -> list[str]:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(ask + "\n")
        program.stdin.flush()
        return [program.stdout.readline().rstrip() for _ in range(count)]

    def expected(code: str) -> list[str]:
        return [f"remote {code}", f"spawn {code}", f"map ['{code}']", f"method mine{code}", "stats 0"]

    deploy_both("one")
    program = subprocess.Popen(
        [sys.executable, "-c", NAMED.format(name=name)],
        env=squall.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert answers(program, "all", 5) == expected("one")
        stop(squall, name)
        assert answers(program, "all", 5) == [
            f"{what} NotFoundError" for what in ("remote", "spawn", "map", "method", "stats")
        ]
        deploy_both("two")
        assert answers(program, "all", 5) == expected("two")

        # What runs when its app is stopped is lost, and says so; it is not begun again in the next one.
        assert program.stdin is not None
        program.stdin.write("slow\n")
        program.stdin.flush()
        wait_until(lambda: "running" in squall.command("call", "list", "--json").out, "the slow call", 60)
        stop(squall, name)
        deploy_both("three")
        assert answers(program, "all", 6) == ["slow ConflictError", *expected("three")]
    finally:
        program.communicate("", timeout=60)
    stop(squall, name)


PAIR = """
import squall

app = squall.App("pair")

@app.function()
def left() -> str:
    return {code!r}

@app.function()
def right() -> str:
    return {code!r}
"""


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_during_deploys_has_one_version_or_the_other(
    make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path
) -> None:
    squall = make_installation({})
    path = tmp_path / "pair.py"
    ask = "import squall; print(*[squall.Function.from_name('pair', name).remote() for name in ('left', 'right')])"
    path.write_text(PAIR.format(code="v0"))
    assert squall.command("deploy", str(path), timeout_s=120).code == 0
    for number, wait_s in enumerate((0.15, 0.25, 0.35, 0.45, 0.6), start=1):
        path.write_text(PAIR.format(code=f"v{number}"))
        deploying = squall.start("deploy", str(path))
        time.sleep(wait_s)
        os.kill(squall.server_pid(), signal.SIGKILL)
        ended = deploying.wait(90)
        got = python(squall, ask)

        # The command finds the next server, and asks it the same again.
        assert ended.code == 0, ended
        assert got.stdout.split() == [f"v{number}"] * 2, got
    versions = json.loads(squall.command("app", "history", "pair", "--json").out)
    assert [one["version"] for one in versions] == [f"v{number}" for number in range(6, 0, -1)]
    stop(squall, "pair")
