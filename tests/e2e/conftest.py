"""The end-to-end suite leaves nothing behind, and shares one server where a test does no harm to it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import leaks
from tests.conftest import remove_data_dir
from tests.e2e import paths
from tests.e2e.installation import Installation, keep_layers_in_cache, link_layers, take_layers_from_cache


@pytest.fixture(scope="session", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Whatever of ours the suite made (processes, mounts, cgroups, links, rules, files) is gone after it."""
    with leaks.none_left_by_suite():
        yield


@pytest.fixture(scope="session")
def session_installation(nothing_leaks: None) -> Iterator[Installation]:
    """A server for the whole session, with the base image made."""
    data_dir = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    take_layers_from_cache(data_dir)
    installation = Installation(data_dir)
    try:
        ended = installation.run("square.py", timeout_s=240)
        assert ended.code == 0, f"{ended}\n--- server.log\n{installation.server_log()}"
        yield installation
    finally:
        strays = installation.strays()
        installation.stop()
        left, undeleted = installation.left_behind(), installation.undeleted()
        keep_layers_in_cache(data_dir)
        mounted = remove_data_dir(data_dir)
    assert not mounted, f"still mounted at the end of the session: {mounted}"
    assert not undeleted, f"not deleted: {undeleted}"
    assert not left, "left behind:\n  " + "\n  ".join(left)
    assert not strays, paths.told(strays)


@pytest.fixture(autouse=True)
def no_strays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where the session's server has one path for all containers (`make test-paths`), those of the test took it."""
    yield
    if "session_installation" in request.fixturenames:
        strays = request.getfixturevalue("session_installation").strays()
        assert not strays, paths.told(strays)


@pytest.fixture
def squall(session_installation: Installation) -> Iterator[Installation]:
    """The session's server. After each test no process of a container is left, and it still is the same server."""
    before = session_installation.server_pid()
    yield session_installation
    session_installation.close_commands()
    session_installation.wait_no_processes(20)
    assert session_installation.server_pid() == before, "the shared server was restarted"


@pytest.fixture
def make_installation(
    session_installation: Installation, make_data_dir: Callable[[], Path]
) -> Iterator[Callable[[Mapping[str, str]], Installation]]:
    """Makes servers that a test may kill or starve, each with settings of its own; they have the base image."""
    made: list[Installation] = []

    def make(settings: Mapping[str, str]) -> Installation:
        data_dir = make_data_dir()
        link_layers(session_installation.data_dir, data_dir)
        made.append(Installation(data_dir, {"SQUALL_NETWORK_SLOTS": "2", **settings}))
        return made[-1]

    yield make
    strays = [line for one in made for line in one.strays()]
    for one in made:
        one.stop()
    left = [line for one in made for line in one.left_behind()]
    undeleted = [path for one in made for path in one.undeleted()]
    assert not undeleted, f"not deleted: {undeleted}"
    assert not left, "left behind:\n  " + "\n  ".join(left)
    assert not strays, paths.told(strays)


@pytest.fixture
def fresh_squall(make_installation: Callable[[Mapping[str, str]], Installation]) -> Installation:
    """A server of the test's own."""
    return make_installation({})
