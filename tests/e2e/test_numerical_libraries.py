"""Forks of templates that have loaded torch, numexpr, OpenCV or MKL: they compute, each with its own randomness."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.e2e.programs import numerical

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

BUILD_S = 900.0


@pytest.fixture
def forking(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    """Whatever the tests are run with, all its containers are forks."""
    return make_installation({"SQUALL_START_PATH": "fork"})


def told(squall: Installation, entrypoint: str) -> list[dict[str, Any]]:
    """What three containers say, each a fork of one template."""
    ended = squall.run(f"numerical.py::{entrypoint}", timeout_s=BUILD_S)
    assert ended.code == 0, ended
    found: list[dict[str, Any]] = json.loads(ended.out.splitlines()[-1])
    assert len({one["container"] for one in found}) == 3
    assert [squall.path_of(one["container"]) for one in found] == ["fork"] * 3, ended
    return found


def test_forks_with_torch_compute_with_their_threads_and_numbers_and_share_what_was_loaded(
    forking: Installation,
) -> None:
    found = told(forking, "of_torch")

    assert len({tuple(one["rand"]) for one in found}) == 3, "they draw the same numbers"
    for one in found:
        assert one["threads"] == {"torch": 3, "omp": 3, "numexpr": 4, "cv2": 5}
        assert one["is_right"] == {"torch": True, "numexpr": True, "cv2": True}
        assert one["sum"] == numerical.LOADED_BYTES // 8
        assert one["private_bytes"] < numerical.LOADED_BYTES / 4, "what was loaded is not shared"


def test_forks_with_mkl_compute_with_their_threads(forking: Installation) -> None:
    for one in told(forking, "of_mkl"):
        assert one["threads"] == 2
        assert one["is_right"]
