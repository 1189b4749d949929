"""The command's other nouns: app, container, server, doctor, completion."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import flows
from tests.e2e.installation import SQUALL, Ended, Installation, wait_until
from tests.e2e.paths import OF_THE_MACHINES_KERNEL
from tests.e2e.terminal import Terminal

GROUPS = ("run", "serve", "app", "schedule", "container", "image", "server", "doctor", "completion")


@pytest.fixture
def ticking(squall: Installation) -> Iterator[dict[str, Any]]:
    """A function that prints until it is ended, and its container as listed."""
    squall.start("run", str(flows.FLOWS / "entries.py::tick"), "--seconds", "60").wait_said("tick\ntick", 60)
    (container,) = [one for one in squall.containers() if one["function"] == "tick"]
    yield container
    squall.command("app", "stop", container["app_id"], "--yes")


def test_every_command_explains_itself_with_an_example(session_installation: Installation) -> None:
    for command in ((), *((group,) for group in GROUPS), ("container", "exec"), ("app", "logs"), ("server", "start")):
        ended = flows.command_ok(session_installation, *command, "--help")

        assert "Example: " in ended.out, command


def test_version_is_told_and_misspelt_commands_corrected(session_installation: Installation) -> None:
    assert flows.command_ok(session_installation, "--version").out.startswith("squall 0.")

    ended = flows.command(session_installation, "contaner", "list")

    assert ended.code == 2
    assert "did you mean 'container'?" in ended.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(session_installation: Installation, shell: str) -> None:
    assert "_SQUALL_COMPLETE" in flows.command_ok(session_installation, "completion", shell).out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("ru", "plain,run"), ("run hel", "file,hel"), ("run --qu", "plain,--quiet"), ("container ex", "plain,exec")],
)
def test_completion_offers_commands_options_and_files(
    session_installation: Installation, typed: str, offered: str
) -> None:
    words = f"squall {typed}"
    variables = {"_SQUALL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

    ended = subprocess.run(
        [SQUALL], env=session_installation.environ(**variables), capture_output=True, text=True, timeout=30, check=True
    )

    assert ended.stdout == f"{offered}\n"


def test_completion_completes(session_installation: Installation) -> None:
    words = {"_SQUALL_COMPLETE": "bash_complete", "COMP_WORDS": "squall cont", "COMP_CWORD": "1"}

    done = subprocess.run(
        [SQUALL], env=session_installation.environ(**words), capture_output=True, text=True, timeout=30, check=False
    )

    assert done.stdout == "plain,container\n"


def test_doctor_checks_what_is_needed(session_installation: Installation) -> None:
    ended = flows.command(session_installation, "doctor", "--json")

    checks = json.loads(ended.out)
    assert {check["status"] for check in checks} <= {"ok", "warn", "fail"}
    assert ended.code == (1 if any(check["status"] == "fail" for check in checks) else 0)
    names = " ".join(check["name"] for check in checks).lower()
    for expected in (
        *("root", "kernel", "cgroup", "port ", "firewall", "disk", "python images", "debian mirror"),
        *("catatonit", "runsc", "criu"),
    ):
        assert expected in names, names
    assert all(check["fix"] for check in checks if check["status"] != "ok")


def test_app_and_container_are_listed_as_table_and_json(squall: Installation, ticking: dict[str, Any]) -> None:
    apps = json.loads(squall.command("app", "list", "--json").out)
    table = squall.command("app", "list").out

    app = next(one for one in apps if one["app_id"] == ticking["app_id"])
    assert (app["description"], app["state"], app["containers"]) == ("entries", "ephemeral", 1)
    assert app["app_id"] in table
    assert table.startswith("App ID")
    assert ticking["app_name"] == "entries"
    assert ticking["container_id"] in squall.command("container", "list", "--app-id", app["app_id"]).out


def test_logs_are_read_by_app_and_container(squall: Installation, ticking: dict[str, Any]) -> None:
    by_id = squall.command("app", "logs", ticking["app_id"], "-n", "2")
    by_name = squall.command("app", "logs", "entries", "--function", "tick", "--search", "tick")
    by_container = squall.command("container", "logs", ticking["container_id"], "--timestamps", "-n", "1")
    nothing = squall.command("container", "logs", ticking["container_id"], "--source", "stderr")

    assert by_id.out == "tick\ntick\n"
    assert set(by_name.out.splitlines()) == {"tick"}
    assert by_container.out.endswith(" tick\n")
    assert by_container.out[:2] == "20"
    assert nothing.out == ""


def test_followed_logs_end_with_the_app(squall: Installation, ticking: dict[str, Any]) -> None:
    follower = squall.start("app", "logs", ticking["app_id"], "--follow", "-n", "1")
    follower.wait_said("tick\ntick\ntick", 20)

    assert squall.command("app", "stop", ticking["app_id"], "--yes").code == 0

    assert follower.wait(15).code == 0


def test_unknown_names_are_told(session_installation: Installation) -> None:
    for arguments in (
        ("app", "logs", "no-such-app"),
        ("app", "stop", "no-such-app", "-y"),
        ("container", "stop", "ct-0123456789ABCDEFGHabcd", "-y"),
        ("container", "stop", "ct-0123456789ABCDEFGHabcd"),
        ("container", "logs", "ct-0123456789ABCDEFGHabcd"),
        ("container", "exec", "ct-0123456789ABCDEFGHabcd", "true"),
    ):
        ended = flows.command(session_installation, *arguments)

        assert ended.code == 1, arguments
        assert arguments[2] in ended.err
        assert "Traceback" not in ended.err


def test_stopped_container_gives_its_input_to_another(squall: Installation, ticking: dict[str, Any]) -> None:
    assert squall.command("container", "stop", ticking["container_id"], "--yes").code == 0

    def others() -> list[str]:
        found = [one["container_id"] for one in squall.containers() if one["function"] == "tick"]
        return [one for one in found if one != ticking["container_id"]]

    wait_until(lambda: bool(others()), "the input runs elsewhere", 20)


def _exec(squall: Installation, container: dict[str, Any], *command: str, given: str | None = None) -> Ended:
    return flows.command(squall, "container", "exec", container["container_id"], *command, given=given)


def test_exec_carries_streams_and_exit_code(squall: Installation, ticking: dict[str, Any]) -> None:
    apart = _exec(squall, ticking, "sh", "-c", "echo out; echo err >&2; exit 7")
    piped = _exec(squall, ticking, "--", "wc", "-c", given="x" * 300_000)
    large = _exec(squall, ticking, "head", "-c", "3000000", "/dev/zero")
    missing = _exec(squall, ticking, "no-such-program")
    refused = _exec(squall, ticking, "/etc/passwd")
    folder = _exec(squall, ticking, "/usr")
    no_interpreter = _exec(
        squall, ticking, "sh", "-c", "printf '#!/no/such\n' > /tmp/it; chmod +x /tmp/it; exec /tmp/it"
    )

    assert (apart.code, apart.out, apart.err) == (7, "out\n", "err\n")
    assert (piped.code, piped.out.strip()) == (0, "300000")
    assert len(large.out) == 3_000_000
    assert (missing.code, missing.err.count("\n")) == (127, 1)
    assert "cannot execute no-such-program: no such program in PATH=" in missing.err
    assert (refused.code, folder.code, no_interpreter.code) == (126, 126, 127)
    assert "/etc/passwd: it is not executable" in refused.err
    assert "/usr: it is a directory" in folder.err


def test_exec_sees_what_the_function_sees(squall: Installation, ticking: dict[str, Any]) -> None:
    ended = _exec(squall, ticking, "sh", "-c", "pwd; ls /root/entries.py; id -u; echo $SQUALL_IS_REMOTE")
    local = _exec(squall, ticking, "python3", "-c", "import squall; print(squall.is_local())")

    assert ended.out.split() == ["/root", "/root/entries.py", "0", "1"]
    # It is asked of a process, not of a place: any other than the function's is local.
    assert local.out == "True\n", local


def test_shell_in_a_container_that_runs(squall: Installation, ticking: dict[str, Any]) -> None:
    command = ("shell", ticking["container_id"], "--no-pty")
    ended = flows.command(squall, *command, "-c", "pwd; ls /root/entries.py; echo $0; exit 7")
    typed = flows.command(squall, *command, given="echo typed; exit 3\n")
    gone = flows.command(squall, "shell", "ct-0000000000000000000000", "-c", "true")

    assert (ended.code, ended.out.split()) == (7, ["/root", "/root/entries.py", "/bin/bash"]), ended
    assert (typed.code, typed.out) == (3, "typed\n")
    assert gone.code == 1
    assert "there is no container ct-0000000000000000000000" in gone.err


@OF_THE_MACHINES_KERNEL
def test_exec_with_a_terminal(squall: Installation, ticking: dict[str, Any]) -> None:
    with Terminal(squall, "container", "exec", ticking["container_id"], "sh") as terminal:
        terminal.type("tty; stty size\r")
        terminal.wait_said("/dev/pts/")
        terminal.wait_said("40 120")
        terminal.type("exit 5\r")

        assert terminal.wait() == 5
