"""Secrets from the command to containers: what is in one is in the environment of the containers that name it, and in
no file, log, argument or answer."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import pickle
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import httpx
import pytest

import squall as modal
from tests.e2e.installation import PROGRAMS, Installation

PROGRAM = str(PROGRAMS / "naming_secrets.py")
EXAMPLE = Path(__file__).parent.parent.parent / "examples/storage/api_keys.py"
PIECE = 2**20
FUNCTIONS = ("plain", "forked", "bare")


def hashed(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def forms(value: str) -> list[bytes]:
    """How it might stand somewhere."""
    plain = value.encode()
    # A base64 text inside of another one begins at any of three places.
    encoded = [base64.b64encode(b"x" * number + plain)[4:-4] for number in range(3)]
    return [plain, plain.hex().encode(), plain.hex().upper().encode(), *encoded]


def files_with(top: Path, values: list[bytes]) -> list[str]:
    """Files below that have one of these in them, pipes and sockets apart."""
    longest = max(map(len, values))
    found = []
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as file:
                    end = b""
                    while piece := file.read(PIECE):
                        end += piece
                        if any(value in end for value in values):
                            found.append(path)
                            break
                        end = end[-longest:]
            except OSError as error:
                # It is gone, or a namespace, which has nothing to read.
                if error.errno not in (errno.ENOENT, errno.EINVAL):
                    raise
    return found


def arguments_with(values: list[bytes]) -> list[str]:
    """Processes that were started with one of these in their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if any(value in line for value in values):
            found.append(line.decode(errors="replace"))
    return found


def create(squall: Installation, directory: Path, name: str, values: Mapping[str, str], *options: str) -> None:
    """As a user does, but for a file that is gone before anybody looks."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(dict(values)))
    ended = squall.command("secret", "create", name, "--from-json", str(path), *options)
    path.unlink()
    assert ended.code == 0, ended


def call(squall: Installation, *names: str) -> dict[str, dict[str, str]]:
    """What these functions of the deployed app see, by name."""
    ended = squall.command(
        "run",
        f"{PROGRAM}::main",
        "--names",
        ",".join(names),
        environ={"PLANTED_LOCAL": "of another run"},
        timeout_s=120,
    )
    assert ended.code == 0, ended
    return dict(json.loads(line) for line in ended.out.splitlines() if line.startswith("["))


CALLING = """
import squall

for name in ("bare", "plain", "forked"):
    try:
        print(name, bool(squall.Function.from_name("naming-secrets", name).remote()))
    except squall.exception.Error as error:
        print(name, error)
"""


def said(squall: Installation, directory: Path, **environ: str) -> str:
    """What becomes of a call of each function, from a program that names no secret."""
    program = directory / "calling.py"
    program.write_text(CALLING)
    ended = squall.command(str(program), executable=(sys.executable,), environ=environ, timeout_s=120)
    assert ended.code == 0, ended
    return ended.out


@pytest.mark.timeout(300)
def test_what_is_in_secrets_is_in_the_containers_that_name_them_and_nowhere_else(
    fresh_squall: Installation, tmp_path: Path
) -> None:
    squall = fresh_squall
    named, local = f"planted-named-{os.urandom(12).hex()}", f"planted-local-{os.urandom(12).hex()}"
    planted = [form for value in (named, local) for form in forms(value)]
    create(squall, tmp_path, "e2e-named", {"PLANTED_NAMED": named})
    deployed = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": local}, timeout_s=240)
    assert deployed.code == 0, deployed
    names = [*FUNCTIONS, *(["apart"] if shutil.which("runsc") else [])]

    seen = call(squall, *names)
    # Another time from what is ready by now.
    again = call(squall, "forked")

    expected = {
        "PLANTED_NAMED": hashed(named), "PLANTED_LOCAL": hashed(local), "at import": hashed(named), "child": "same",
        "P1": hashed("image"), "P2": hashed("app"), "P3": hashed("function"), "P4": hashed("env"),
    }  # fmt: skip
    for name in set(names) - {"bare"}:
        assert expected.items() <= seen[name].items(), name
    assert expected.items() <= again["forked"].items()
    assert [seen["bare"][name] for name in ("PLANTED_NAMED", "PLANTED_LOCAL", "P2")] == ["", "", hashed("image")]
    paths = {name: squall.path_of(one["container"]) for name, one in (*seen.items(), ("again", again["forked"]))}
    if "SQUALL_START_PATH" not in squall.environ():
        assert paths["again"] in ("fork", "parked"), paths
        assert paths.get("apart", "plain") == "plain", "what is restored was a file"

    with_handles = [
        pickle.dumps(modal.Secret.from_dict({"A": named})),
        pickle.dumps(modal.Secret.from_name("e2e-named")),
    ]
    answers = list(answers_of(squall, seen["plain"]["container"]))
    assert not [text for text in (*answers, *with_handles) if any(form in text for form in planted)]
    assert not arguments_with(planted)
    assert not files_with(squall.data_dir, planted)
    assert files_with(squall.data_dir, [b"e2e-named"]), "the search finds what is there"
    squall.stop()
    assert not files_with(squall.data_dir, planted)


def answers_of(squall: Installation, container_id: str) -> Iterator[bytes]:
    """What commands and the HTTP twin say of all there is."""
    calls = json.loads(squall.command("call", "list", "--json").out)
    commands = (
        ("secret", "list", "--json"),
        ("app", "list", "--json"),
        ("app", "info", "naming-secrets", "--json"),
        ("app", "logs", "naming-secrets"),
        ("app", "history", "naming-secrets", "--json"),
        ("container", "list", "--json"),
        ("container", "show", container_id, "--json"),
        ("template", "list", "--json"),
        ("call", "show", calls[0]["call_id"], "--json"),
        ("server", "status", "--json"),
    )
    for command in commands:
        ended = squall.command(*command)
        assert ended.code == 0, ended
        yield (ended.out + ended.err).encode()
    server = json.loads((squall.data_dir / "server.json").read_text())
    headers = {"Authorization": f"Bearer {(squall.data_dir / 'token').read_text().strip()}"}
    named = {"app": "naming-secrets", "has_functions": False}
    app = httpx.post(f"{server['url']}/api/v1/AppGet", headers=headers, json=named, timeout=30).json()
    for method, asked in (
        ("FunctionList", {"app_id": app["app_id"], "has_env": True}),
        ("FunctionGet", {"app": "naming-secrets", "name": "plain", "has_env": True}),
        ("SecretGet", {"secret": "e2e-named"}),
        ("SecretList", {}),
        ("TemplateList", {}),
        ("ContainerShow", {"container_id": container_id}),
    ):
        answer = httpx.post(f"{server['url']}/api/v1/{method}", headers=headers, json=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        yield answer.content


@pytest.mark.timeout(300)
def test_what_is_changed_reaches_new_containers_and_a_deleted_one_none(
    make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path
) -> None:
    squall = make_installation({})
    create(squall, tmp_path, "e2e-named", {"PLANTED_NAMED": "first"})
    deployed = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": "local"}, timeout_s=240)
    assert deployed.code == 0, deployed
    before = call(squall, "plain", "forked")
    first = before["plain"]["container"]

    create(squall, tmp_path, "e2e-named", {"PLANTED_NAMED": "second"}, "--force")
    after = call(squall, "plain", "forked")

    assert (after["plain"]["container"], after["plain"]["PLANTED_NAMED"]) == (first, hashed("first")), "it runs on"
    assert after["forked"]["PLANTED_NAMED"] == after["forked"]["at import"] == hashed("second")
    # A deploy that changes nothing leaves it alone; so does a new key, and a server that begins again.
    assert squall.command("secret", "rotate-key").code == 0
    again = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": "local"}, timeout_s=120)
    assert again.code == 0, again
    assert call(squall, "plain")["plain"]["container"] == first
    assert squall.command("container", "stop", first, "--yes").code == 0
    assert call(squall, "plain")["plain"]["PLANTED_NAMED"] == hashed("second")

    assert squall.command("secret", "delete", "e2e-named", "--yes").code == 0
    told = said(squall, tmp_path)
    assert "plain True" in told, "it has a container"
    assert "forked function forked cannot be started: there is no secret st-" in told
    refused = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": "local"}, timeout_s=60)
    assert refused.code != 0
    assert "cannot use the secret: there is no secret 'e2e-named'" in refused.err


@pytest.mark.timeout(300)
def test_with_another_key_the_server_starts_and_what_needs_a_secret_fails_in_words(
    make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path
) -> None:
    squall = make_installation({})
    create(squall, tmp_path, "e2e-named", {"PLANTED_NAMED": "first"})
    deployed = squall.command("deploy", PROGRAM, environ={"PLANTED_LOCAL": "local"}, timeout_s=240)
    assert deployed.code == 0, deployed
    squall.stop()
    key = squall.data_dir / "secret.key"
    kept = key.read_text()
    key.unlink()
    other = base64.b64encode(b"k" * 32).decode()

    wrong = said(squall, tmp_path, SQUALL_SECRET_KEY=other)
    squall.stop()
    assert "bare True" in wrong
    assert "plain function plain cannot be started: secret st-" in wrong
    assert "start it with that key again" in wrong
    right = said(squall, tmp_path, SQUALL_SECRET_KEY=f"{other},{kept.strip()}")
    assert "plain True" in right


@pytest.mark.timeout(300)
def test_secrets_are_for_builds_variants_shells_and_apps_in_containers(
    fresh_squall: Installation, tmp_path: Path
) -> None:
    squall = fresh_squall
    planted = f"planted-passed-{os.urandom(12).hex()}"
    create(squall, tmp_path, "e2e-passed", {"PASSED": planted})

    ended = squall.run("passing_secrets.py", timeout_s=240)

    assert ended.code == 0, ended
    of_step, of_function, of_variant, again, inside, vaults = json.loads(ended.out.splitlines()[-1])
    length = len(planted)
    assert of_step == [length, 0], "of a step it is in the step alone"
    assert of_function == [length, 0]
    assert of_variant == again == [0, 4]
    assert vaults == [[length, 0], [0, 2], [0, 2]]
    assert inside[:3] == [[length, 5], "e2e-passed", 0]
    assert "neither lists, makes, changes nor deletes" in inside[3]
    assert planted not in ended.out + ended.err
    assert "of the step: ***" in ended.err, "what a step prints of it is hidden"
    shell = squall.command("shell", "--secret", "e2e-passed", "-c", 'test "$PASSED" && echo set', timeout_s=120)
    assert (shell.code, shell.out.strip()) == (0, "set"), shell
    assert not files_with(squall.data_dir, forms(planted))


REPLAYED = """
    import hashlib, os, squall
    app = squall.App("replayed")
    own = squall.Secret.from_dict({"OWN": "of the function"})

    @app.function(secrets=[squall.Secret.from_name("of-replay"), own])
    def fail() -> None:
        print("sees", hashlib.sha256(os.environ["NAMED"].encode()).hexdigest(), os.environ["OWN"])
        raise ValueError("as always")

    @app.local_entrypoint()
    def main() -> None:
        fail.remote()
"""


@pytest.mark.timeout(120)
def test_a_call_that_is_replayed_has_the_secrets_of_its_function(squall: Installation, tmp_path: Path) -> None:
    create(squall, tmp_path, "of-replay", {"NAMED": "first"})
    (tmp_path / "replayed.py").write_text(dedent(REPLAYED))
    assert squall.command("run", str(tmp_path / "replayed.py")).code == 1
    create(squall, tmp_path, "of-replay", {"NAMED": "second"}, "--force")
    (call_id,) = [
        one["call_id"]
        for one in json.loads(squall.command("call", "list", "--failed", "--app", "replayed", "--json").out)
    ]

    replayed = squall.command("call", "replay", call_id, timeout_s=100)

    assert replayed.code == 1, replayed
    assert "as always" in replayed.err, replayed
    # As all that starts: with what is in the secret now.
    assert f"sees {hashed('second')} of the function" in replayed.out, replayed


@pytest.mark.timeout(240)
def test_the_example_does_what_it_says(squall: Installation, tmp_path: Path) -> None:
    create(squall, tmp_path, "example-service", {"SERVICE_TOKEN": "t0ken"}, "--force")

    ended = squall.command("run", str(EXAMPLE), timeout_s=200)

    assert ended.code == 0, ended
    said = [line for line in ended.out.splitlines() if line and not line.startswith("App completed")]
    mark = hashed("t0ken")[:8]
    assert said == [
        f"asked {{'as': 'ada', 'of': 'https://service.example', 'with a token': '{mark}'}}",
        "another function has it: False",
        "last used: True",
    ]
