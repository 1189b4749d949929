"""Dicts and queues are shared by programs of any version of Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import squall
from squall.sdk import _client, _local_server
from tests.guest.spawner_double import SOURCE
from tests.guest.started_guest import interpreters
from tests.sdk.real_server import RealServer

PROGRAM = """
import squall

cache = squall.Dict.from_name("cache")
assert cache["k", 1, None, b"y", 1.5, True, ("nested", "k")] == {"from": "ours"}
assert "k" in cache and not cache.put("k", 2, skip_if_exists=True)
cache["k", "k"] = ["theirs", "k"]
jobs = squall.Queue.from_name("jobs")
assert jobs.get() == ("ours", 1)
jobs.put_many([{"theirs": 1}, 2])
"""


@pytest.fixture
def server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealServer]:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.delenv("SQUALL_SERVER_URL", raising=False)
    monkeypatch.setattr(_local_server, "start", lambda data_dir: None)
    with RealServer(data_dir) as server:
        yield server
        _client.close()


@pytest.mark.parametrize("python", interpreters())
def test_a_program_of_another_version_means_the_same_keys_and_items(server: RealServer, python: str) -> None:
    cache = squall.Dict.from_name("cache", create_if_missing=True)
    cache["k", 1, None, b"y", 1.5, True, ("nested", "k")] = {"from": "ours"}
    cache["k"] = 1
    jobs = squall.Queue.from_name("jobs", create_if_missing=True)
    jobs.put(("ours", 1))

    environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([python, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert cache["k", "k"] == ["theirs", "k"]
    assert jobs.get_many(2) == [{"theirs": 1}, 2]
