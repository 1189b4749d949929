"""Arguments and results that cannot be pickled are named; large ones work."""

from __future__ import annotations

from tests.e2e.installation import Installation


def test_unpicklable_argument_is_named_with_its_type(squall: Installation) -> None:
    ended = squall.run("values.py::unpicklable_argument")

    assert ended.code == 1, ended
    assert "cannot pickle arguments (lock)" in ended.err, ended
    assert "pass plain data, and open files, sockets and locks inside the function" in ended.err, ended
    assert "values.py" in ended.err, f"does not say where: {ended}"
    assert "App completed." in ended.err, ended


def test_unpicklable_argument_in_a_map_fails_the_map_only(squall: Installation) -> None:
    ended = squall.run("values.py::unpicklable_map")

    assert ended.code == 0, ended
    assert ": cannot pickle arguments (lock)" in ended.out, ended
    assert "still works: 4" in ended.out, ended


def test_unpicklable_result_is_refused_in_the_container_and_named(squall: Installation) -> None:
    ended = squall.run("values.py::unpicklable_result")

    assert ended.code == 0, ended
    assert ended.out.count("a result of type lock cannot be pickled") == 2, ended
    assert "refused: function make_lock: " in ended.out, ended
    assert "refused: function yield_lock: " in ended.out, ended
    assert "still works: 4" in ended.out, ended


def test_200_mb_argument_and_50_mb_result_arrive_unchanged(squall: Installation) -> None:
    ended = squall.run("values.py::large", timeout_s=90)

    assert ended.code == 0, ended
    assert "argument of 199 MiB: True" in ended.out, ended
    assert "result of 50 MiB: True" in ended.out, ended
