"""`squall image`: what was built is listed, shown, drawn and read, and goes when nothing needs it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.image_catalog import ImageName, ImagePublish
from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until

PROGRAM = """
import time
import squall

app = squall.App("pictured")
below = squall.Image.debian_slim("3.11").run_commands("echo making a; head -c 300000 /dev/urandom > /a")
above = below.env({"GREETING": "hello"}).run_commands("echo making b; echo b > /b")

@app.function(image=below)
def one():
    return open("/a", "rb").read(1)

@app.function(image=above)
def two(seconds=0.0):
    print("two is up", flush=True)
    time.sleep(seconds)
    return open("/b").read()

@app.local_entrypoint()
def main(seconds: float = 0.0):
    one.remote()
    print("found", two.remote(seconds))
"""
BROKEN = """
import squall

app = squall.App("broken")
image = squall.Image.debian_slim("3.11").run_commands("echo before it breaks; exit 3")

@app.function(image=image)
def never():
    pass

@app.local_entrypoint()
def main():
    never.remote()
"""


def listed(squall: Installation, *arguments: str) -> Any:
    return json.loads(flows.command_ok(squall, "image", *arguments, "--json").out)


def publish(squall: Installation, image_id: str, name: str) -> None:
    """By the method that the SDK's `publish` calls."""
    source = (
        "from squall.cli.server_calls import ask\n"
        f"from {ImagePublish.__module__} import {ImagePublish.__name__}, {ImageName.__name__}\n"
        f"ask('ImagePublish', ImagePublish({image_id!r}, {name!r}), ImageName)\n"
    )
    flows.program(squall, source)


@pytest.mark.timeout(300)
def test_images_are_listed_shown_drawn_named_read_and_removed(
    make_installation: Callable[[Mapping[str, str]], Installation], tmp_path: Path
) -> None:
    squall = make_installation({})
    (tmp_path / "pictured.py").write_text(PROGRAM)
    ran = squall.command("run", str(tmp_path / "pictured.py"), timeout_s=120)
    assert ran.code == 0, str(ran)

    images = listed(squall, "list")
    by_depth = {one["layers"]: one for one in images}
    below, above = by_depth[2], by_depth[3]
    _look(squall, below, above)
    _read(squall, above)
    _names(squall, below, above)
    _remove(squall, tmp_path, below, above)
    _remove_by_name(squall, below, above)


def _look(squall: Installation, below: dict[str, Any], above: dict[str, Any]) -> None:
    table = flows.command_ok(squall, "image", "list").out
    shown = flows.command_ok(squall, "image", "show", above["image_id"]).out
    info = listed(squall, "show", above["image_id"])
    steps = listed(squall, "history", above["image_id"])
    tree = flows.command_ok(squall, "image", "tree")
    (trunk,) = listed(squall, "tree")

    assert table.startswith("Image ID")
    assert above["size_bytes"] > below["size_bytes"] > 10 * 2**20
    assert "in 3 layers" in shown
    assert "GREETING=hello" in shown
    assert info["config"]["env"]["GREETING"] == "hello"
    assert [step["what"] for step in steps] == [
        "debian_slim 3.11",
        "run_commands echo making a; head -c 300000 /dev/urandom > /a",
        "env GREETING",
        "run_commands echo making b; echo b > /b",
    ]
    assert [len(step["layers"]) for step in steps] == [1, 1, 0, 1]
    assert steps[1]["size_bytes"] >= 300_000
    assert trunk["images"] == [below["image_id"]]
    assert trunk["branches"][0]["images"] == [above["image_id"]]
    assert f"└── {above['image_id']}" in tree.out
    assert "2 images, 3 layers" in tree.err


def _read(squall: Installation, above: dict[str, Any]) -> None:
    last = flows.command_ok(squall, "image", "logs", above["image_id"])
    everything = flows.command_ok(squall, "image", "logs", above["image_id"], "--all")
    by_sdk = flows.program(
        squall,
        "import squall\n"
        f"image = squall.Image.from_id({above['image_id']!r})\n"
        "for entry in image.logs.fetch(layers=2): print(entry.source, entry.message)",
    )

    assert last.out == "+ echo making b; echo b > /b\nmaking b\n"
    assert "step 4 of 4: run_commands echo making b" in last.err
    assert everything.out.endswith(f"\nmaking a\n{last.out}")
    assert "stdout making a" in by_sdk.splitlines()
    assert "stdout making b" in by_sdk.splitlines()


def _names(squall: Installation, below: dict[str, Any], above: dict[str, Any]) -> None:
    for image, name in ((above, "web:1"), (below, "web:1"), (above, "other")):
        publish(squall, image["image_id"], name)

    names = listed(squall, "names", "list")
    of_web = flows.command_ok(squall, "image", "names", "list", "--prefix", "web", "--all").out.splitlines()
    flows.command_ok(squall, "image", "names", "delete", "other", "--yes")
    missing = flows.command(squall, "image", "show", "other")

    assert [(one["name"], one["image_id"]) for one in names] == [
        ("other:latest", above["image_id"]),
        ("web:1", below["image_id"]),
    ]
    assert [line.split()[1] for line in of_web[1:]] == [below["image_id"], above["image_id"]]
    assert missing.code == 1
    assert "no image is published as other:latest; build one and call image.publish('other:latest')" in missing.err


def _remove(squall: Installation, tmp_path: Path, below: dict[str, Any], above: dict[str, Any]) -> None:
    running = squall.start("run", str(tmp_path / "pictured.py"), "--seconds", "60")
    running.wait_said("two is up", 60)
    # Others that are here came with the base and belong to no image of this server.
    while_it_runs = [layer for layer in listed(squall, "gc", "--all") if layer["images"]]
    dry = flows.command_ok(squall, "image", "gc", "--all", "--dry-run")
    squall.command("app", "stop", "pictured", "--yes")
    running.wait(30)
    squall.wait_no_processes(20)
    lately = [layer for layer in listed(squall, "gc") if layer["images"]]

    assert [layer["is_removed"] for layer in (*while_it_runs, *lately)] == [False] * 6
    users = [" ".join(layer["used_by"]) for layer in while_it_runs]
    assert all("app pictured" in text for text in users)
    assert any("container ct-" in text for text in users)
    assert "Would free " in dry.err
    assert "app pictured" in dry.out

    removed: list[Any] = []

    def collected() -> bool:
        removed.extend(layer for layer in listed(squall, "gc", "--all") if layer["is_removed"] and layer["images"])
        return bool(removed)

    # What was used in this second stays.
    wait_until(collected, "the layer that only the unnamed image had is removed", 20)
    assert [layer["images"] for layer in removed] == [[above["image_id"]]]
    assert [one["image_id"] for one in listed(squall, "list")] == [below["image_id"]]
    again = squall.command("run", str(tmp_path / "pictured.py"), timeout_s=120)
    assert again.code == 0, str(again)
    assert "found b" in again.out


def _remove_by_name(squall: Installation, below: dict[str, Any], above: dict[str, Any]) -> None:
    published = flows.command(squall, "image", "rm", below["image_id"], "--yes")
    unsaid = flows.command(squall, "image", "rm", "web:1")
    assert len(listed(squall, "list")) == 2
    done = flows.command_ok(squall, "image", "rm", above["image_id"][:16], "web:1", "--yes")
    twice = flows.command(squall, "image", "rm", above["image_id"], "--yes")

    assert (published.code, unsaid.code, twice.code) == (1, 1, 1)
    assert "with --yes there is no question" in unsaid.err
    assert f"cannot remove images: {below['image_id']} is published as web:1; remove it by its name" in published.err
    assert f"Remove the name web:1, image {below['image_id']} and free " in unsaid.out
    assert done.err.startswith("Deleted the name web:1.\n")
    assert {f"Removed {one['image_id']}." for one in (below, above)} < set(done.err.splitlines())
    assert re.search(r"Freed .* MB: 3 layers removed, 0 stay\.", done.err)
    assert "is known here; `squall image list` shows those that are" in twice.err
    assert (listed(squall, "list"), listed(squall, "names", "list")) == ([], [])


@pytest.mark.timeout(120)
def test_log_of_a_build_that_failed_is_shown_later(squall: Installation, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    failed = squall.command("run", str(tmp_path / "broken.py"))
    (image_id,) = set(re.findall(r"\bim-[0-9a-f]+", failed.err))

    log = flows.command_ok(squall, "image", "logs", image_id)
    nothing = flows.command(squall, "image", "logs", "im-0123456789")

    assert log.out.endswith("\nbefore it breaks\n")
    assert "exit status 3" in log.err
    assert nothing.code == 1
    assert "cannot read the build log: no node that is connected has built image im-0123456789" in nothing.err
