"""Lines of builds: what was there already is told only beside what was not."""

from __future__ import annotations

from squall.protocol.image import BuildEvent
from squall.sdk._build_view import BuildView

STEP = BuildEvent("step", 2, 2, "pip_install numpy")


def test_image_that_is_there_says_nothing() -> None:
    view = BuildView()

    said = [*view.lines("im-1", BuildEvent("cached", 1, 1, "debian_slim 3.11"), 0), *view.lines("im-1", BUILT, 1)]

    assert said == []


BUILT = BuildEvent("built")


def test_steps_are_shown_with_time_and_size_and_what_was_cached() -> None:
    view = BuildView()
    said: list[str] = []

    for event, now in (
        (BuildEvent("cached", 1, 3, "debian_slim 3.11", size_bytes=140_000_000), 0.0),
        (BuildEvent("cached", 2, 3, "env A"), 0.0),
        (STEP, 1.0),
        (BuildEvent("line", 2, 2, " + numpy==2.4"), 2.0),
        (BuildEvent("done", 2, 2, duration_s=6.44, size_bytes=7_120_000), 7.5),
        (BUILT, 7.5),
    ):
        said += view.lines("im-1", event, now)

    assert said == [
        "[1/3] debian_slim 3.11 · cached · 140 MB",
        "[2/3] env A",
        "[2/2] pip_install numpy",
        "     + numpy==2.4",
        "[2/2] done in 6.4 s · 7.1 MB",
        "im-1 built in 6.5 s · 147 MB, 1 of its steps cached",
    ]


def test_builds_at_the_same_time_are_told_apart() -> None:
    view = BuildView()

    view.lines("im-aaaaaaaaaaaa", STEP, 0)
    said = view.lines("im-bbbbbbbbbbbb", BuildEvent("step", 1, 1, "debian_slim 3.13"), 1)

    assert said == ["[im-bbbbbb 1/1] debian_slim 3.13"]
    assert view.lines("im-aaaaaaaaaaaa", BuildEvent("line", 2, 2, "x"), 2) == ["    im-aaaaaa x"]
    assert view.status(10) == "[im-aaaaaa 2/2] pip_install numpy 10 s  [im-bbbbbb 1/1] debian_slim 3.13 9 s"


def test_build_that_failed_is_forgotten() -> None:
    view = BuildView()
    view.lines("im-1", STEP, 0)

    view.forget("im-1")

    assert view.status(1) == ""
