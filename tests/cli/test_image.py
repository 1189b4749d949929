"""`squall image`, as far as it needs no server: trees, and what is wrong usage."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from squall.cli import image_gc, image_rm, main
from squall.cli.image_tree import draw, grow, totals
from squall.protocol.image import BuiltLayer
from squall.protocol.image_catalog import ImageDeleteDone, ImageInfo, LayerUse, NodeGc
from squall.protocol.image_store import ImageStoreGc, StoreGcEvent, StoreKind
from squall.sdk._terminal_text import size_text

MB = 10**6


def make_image(image_id: str, *sizes: tuple[str, int], names: tuple[str, ...] = ()) -> ImageInfo:
    return ImageInfo(image_id, 1.0, 1.0, tuple(BuiltLayer(f"ly-{name}", size * MB) for name, size in sizes), "", names)


BASE, TOOLS = ("base", 100), ("tools", 20)
IMAGES = (
    make_image("im-plain", BASE),
    make_image("im-web", BASE, TOOLS, ("web", 3), names=("web:latest",)),
    make_image("im-data", BASE, TOOLS, ("numpy", 50), ("pandas", 30)),
    make_image("im-other", ("slim", 10)),
    make_image("im-fetched"),
)


def test_shared_layers_are_drawn_once() -> None:
    assert list(draw(grow(IMAGES))) == [
        "ly-base  100 MB  (3 images)",
        "├── im-plain  100 MB in all",
        "└── ly-tools  20 MB  (2 images)",
        "    ├── ly-numpy and 1 more  80 MB  (1 image)",
        "    │   └── im-data  200 MB in all",
        "    └── ly-web  3.0 MB  (1 image)",
        "        └── im-web  web:latest  123 MB in all",
        "ly-slim  10 MB  (1 image)",
        "└── im-other  10 MB in all",
        "layers that are not known here",
        "└── im-fetched  0 kB in all",
    ]
    assert totals(IMAGES) == "5 images, 6 layers with 213 MB; without sharing 433 MB"
    assert list(draw(grow(()))) == []


def test_tree_for_programs_has_what_the_drawing_has() -> None:
    (base, *_) = grow(IMAGES)

    found = base.to_json()

    assert (found["layers"], found["size_bytes"], found["images"]) == (["ly-base"], 100 * MB, ["im-plain"])
    assert [branch["layers"] for branch in found["branches"][0]["branches"]] == [["ly-numpy", "ly-pandas"], ["ly-web"]]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 kB"), (7, "1 kB"), (1_500, "1 kB"), (1_500_000, "1.5 MB"), (71 * MB, "71 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_are_short(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gc", "--all", "--older-than", "3"], "--all and --older-than say different things"),
        (["gc", "--store", "--all"], "--all is of nodes; what was used in the last 7 days stays in a store"),
        (["gc", "--older-than", "soon"], "'soon' is no time; write 12h, 7d, or a number of days"),
        (["gc", "--older-than", "-1"], "'-1' is no time"),
        (["logs", "im-1", "--all", "--layers", "2"], "--all and --layers say different things"),
        (["logs", "im-1", "--layers", "0"], "0 is not in the range"),
        (["list", "--limit", "0"], "0 is not in the range"),
        (["build", ".", "--build-arg", "WHAT_NOBODY_SET"], "'WHAT_NOBODY_SET' has no value here; write NAME=VALUE"),
        (["build", ".", "--build-arg", "=1"], "'=1' has no value here"),
        (["build", ".", "-t", "UPPER/Case:"], "UPPER/Case:"),
        (["build", "/nowhere"], "'/nowhere' does not exist"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(main.squall, ["image", *arguments])

    assert ended.exit_code == 2, ended.output
    assert said in ended.output


def test_removal_says_what_went_and_ends_with_what_stays_though_it_was_to_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared, gone = LayerUse("ly-1", 5 * MB, 1.0, 1.0), LayerUse("ly-2", 7 * MB, 1.0, 1.0, is_removed=True)
    node = NodeGc("nd-1", (shared, gone), 7 * MB)
    done = ImageDeleteDone(
        ("web:1", "old:1"), ("im-1",), {"im-2": ("old:2",)}, {"im-3": ("build of im-4",)}, (node,), ("nd-2",)
    )

    with pytest.raises(click.ClickException, match="im-3 stays: build of im-4; try again with the id"):
        image_rm._tell(done)

    assert image_rm._question(done) == "Remove the name web:1, the name old:1, image im-1 and free 7.0 MB?"
    assert capsys.readouterr().err.splitlines() == [
        "Deleted the name web:1.",
        "Deleted the name old:1.",
        "Removed im-1.",
        "im-2 stays: it is also called old:2.",
        "Freed 7.0 MB: 1 layers removed, 1 stay.",
        "Not connected: nd-2. What is there goes with `squall image gc` when it is back.",
    ]
    assert image_rm._question(ImageDeleteDone(("old:1",), (), {"im-2": ("old:2",)})) == "Remove the name old:1?"


@pytest.mark.parametrize("is_dry_run", [False, True])
def test_what_goes_from_a_store_is_told_by_kind(capsys: pytest.CaptureFixture[str], is_dry_run: bool) -> None:
    images, waiting = StoreKind(3, 2_000, 1, 1_000), StoreKind(2, 2_000, 2, 2_000)
    layers, blocks = StoreKind(5, 4 * MB, 1, MB), StoreKind(90, 700 * MB, 10, 80 * MB)
    done = StoreGcEvent("done", "", "s3://layers", images, layers, blocks, waiting)

    image_gc._show_store(done, ImageStoreGc(is_dry_run=is_dry_run), is_json=False)
    shown = capsys.readouterr()
    image_gc._show_store(done, ImageStoreGc(is_dry_run=is_dry_run), is_json=True)

    assert [line.split() for line in shown.out.splitlines()] == [
        ["Kind", "Objects", "Size", *(["Would", "go"] if is_dry_run else ["Removed"]), "Frees"],
        ["images", "3", "2", "kB", "1", "1", "kB"],
        ["removed", "images", "2", "2", "kB", "2", "2", "kB"],
        ["layers", "5", "4.0", "MB", "1", "1.0", "MB"],
        ["blocks", "90", "700", "MB", "10", "80", "MB"],
    ]
    assert shown.err.splitlines() == (
        [
            "Would free 81 MB of s3://layers.",
            "What only the 1 removed images have would go 7 days later.",
        ]
        if is_dry_run
        else ["Freed 81 MB of s3://layers.", "What only the 1 removed images have goes with the first run in 7 days."]
    )
    assert json.loads(capsys.readouterr().out)[3] == {
        "kind": "blocks",
        "objects": 90,
        "size_bytes": 700 * MB,
        "removed": 10,
        "freed_bytes": 80 * MB,
    }


@pytest.mark.parametrize("group", [[], ["names"]])
def test_what_the_commands_do_is_said_in_whole_sentences(group: list[str]) -> None:
    ended = CliRunner().invoke(main.squall, ["image", *group, "--help"], terminal_width=80)

    lines = ended.output.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert lines
    assert [line for line in lines if not line.endswith(".") or line.endswith("..")] == []
