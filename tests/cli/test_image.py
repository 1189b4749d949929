"""`squall image`, as far as it needs no server: trees, and what is wrong usage."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from squall.cli import main, tables
from squall.cli.image_tree import draw, grow, totals
from squall.protocol.image import BuiltLayer
from squall.protocol.image_catalog import ImageInfo

MIB = 2**20


def make_image(image_id: str, *sizes: tuple[str, int], names: tuple[str, ...] = ()) -> ImageInfo:
    return ImageInfo(image_id, 1.0, 1.0, tuple(BuiltLayer(f"ly-{name}", size * MIB) for name, size in sizes), "", names)


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
        "ly-base  100 MiB  (3 images)",
        "├── im-plain  100 MiB in all",
        "└── ly-tools  20.0 MiB  (2 images)",
        "    ├── ly-numpy and 1 more  80.0 MiB  (1 image)",
        "    │   └── im-data  200 MiB in all",
        "    └── ly-web  3.0 MiB  (1 image)",
        "        └── im-web  web:latest  123 MiB in all",
        "ly-slim  10.0 MiB  (1 image)",
        "└── im-other  10.0 MiB in all",
        "layers that are not known here",
        "└── im-fetched  0 B in all",
    ]
    assert totals(IMAGES) == "5 images, 6 layers with 213 MiB; without sharing 433 MiB"
    assert list(draw(grow(()))) == []


def test_tree_for_programs_has_what_the_drawing_has() -> None:
    (base, *_) = grow(IMAGES)

    found = base.to_json()

    assert (found["layers"], found["size_bytes"], found["images"]) == (["ly-base"], 100 * MIB, ["im-plain"])
    assert [branch["layers"] for branch in found["branches"][0]["branches"]] == [["ly-numpy", "ly-pandas"], ["ly-web"]]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KiB"),
        (150 * MIB, "150 MiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**50, "1024 TiB"),
    ],
)
def test_sizes_are_short(size_bytes: int, text: str) -> None:
    assert tables.size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gc", "--all", "--older-than", "3"], "--all and --older-than say different things"),
        (["gc", "--older-than", "soon"], "'soon' is no time; write 12h, 7d, or a number of days"),
        (["gc", "--older-than", "-1"], "'-1' is no time"),
        (["logs", "im-1", "--all", "--layers", "2"], "--all and --layers say different things"),
        (["logs", "im-1", "--layers", "0"], "0 is not in the range"),
        (["list", "--limit", "0"], "0 is not in the range"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(arguments: list[str], said: str) -> None:
    ended = CliRunner().invoke(main.squall, ["image", *arguments])

    assert ended.exit_code == 2, ended.output
    assert said in ended.output
