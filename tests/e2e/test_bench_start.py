"""`squall bench start` with the real server and containers: starts are cold, others are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.e2e.installation import PROGRAMS, Installation

PROGRAM = str(PROGRAMS / "measured.py")


@pytest.fixture(scope="module")
def deployed(session_installation: Installation) -> Iterator[Installation]:
    ended = session_installation.command("deploy", PROGRAM, timeout_s=120)
    assert ended.code == 0, ended
    yield session_installation
    session_installation.command("app", "stop", "measured.starts", "--yes")


def running(squall: Installation) -> list[str]:
    """Containers of the app."""
    return [one["container_id"] for one in squall.containers() if one["app_name"] == "measured.starts"]


@pytest.mark.timeout(240)
def test_each_start_is_cold_and_the_functions_own_containers_go_on(deployed: Installation) -> None:
    before = deployed.command("run", f"{PROGRAM}::warm")
    kept = running(deployed)
    assert (before.code, len(kept)) == (0, 1), before

    ended = deployed.command("bench", "start", "measured.starts.hello", "-n", "5", "--json", timeout_s=120)

    assert ended.code == 0, ended
    starts = json.loads(ended.out)["starts"]
    assert len({one["container_id"] for one in starts}) == 5
    for one in starts:
        took = dict(one["phases"])
        assert took["import"] > 20, "its module takes 20 ms to import, each time anew"
        assert sum(took.values()) == pytest.approx(one["total_ms"], abs=1)
        assert one["path"] in ("plain", "fork", "parked", "restore")
    assert running(deployed) == kept, "those that serve others are left alone, and none of those measured is left"


@pytest.mark.timeout(240)
def test_report_says_where_time_goes_and_draws_it(
    deployed: Installation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    picture = tmp_path_factory.mktemp("bench") / "starts.svg"

    ended = deployed.command(
        "bench", "start", "measured.starts.Model.predict", "-n", "3", "--args", '{"value": 4}', "--parameters",
        '{"size": 3}', "--svg", str(picture), timeout_s=120,
    )  # fmt: skip

    assert ended.code == 0, ended
    assert "measured.starts.Model.predict: 3 cold starts" in ended.out
    assert "Slowest: enter hooks" in ended.out
    assert "@squall.enter(snap=True)" in ended.out
    ElementTree.parse(picture)


@pytest.mark.timeout(240)
def test_generators_are_measured_to_their_first_item(deployed: Installation) -> None:
    ended = deployed.command("bench", "start", "measured.starts.endless", "-n", "2", "--json", timeout_s=120)

    assert ended.code == 0, ended
    assert json.loads(ended.out)["p50_ms"] < 5_000


@pytest.mark.timeout(240)
def test_what_cannot_be_measured_says_why_and_leaves_nothing(deployed: Installation) -> None:
    kept = running(deployed)

    wrong = deployed.command("bench", "start", "measured.starts.helo")
    failing = deployed.command("bench", "start", "measured.starts.hello", "--args", '{"no": 1}', timeout_s=120)

    assert (wrong.code, failing.code) == (1, 1), (wrong, failing)
    assert "did you mean measured.starts.hello?" in wrong.err
    assert "unexpected keyword argument 'no'" in failing.err
    assert "given by --args" in failing.err
    assert running(deployed) == kept


@pytest.mark.timeout(240)
def test_what_does_not_load_ends_the_measurement_with_its_cause(session_installation: Installation) -> None:
    ended = session_installation.command("deploy", str(PROGRAMS / "not_loading.py"), timeout_s=120)
    assert ended.code == 0, ended

    failed = session_installation.command("bench", "start", "not-loading.hello", timeout_s=120)
    session_installation.command("app", "stop", "not-loading", "--yes")

    assert failed.code == 1, failed
    assert "its database is away" in failed.err
