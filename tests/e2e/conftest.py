"""The end-to-end suite leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leaks


@pytest.fixture(scope="session", autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Whatever of ours the suite made (processes, mounts, cgroups, links, rules, files) is gone after it."""
    with leaks.none_left():
        yield
