"""What becomes of a clone that has gone before it is told who it is."""

from __future__ import annotations

import pytest

from squall.runtime.clones import Clones
from squall.runtime.container import Clone
from squall.runtime.errors import ContainerMissing
from squall.runtime.launch import LaunchKit
from squall.runtime.poll import Poller

KIT = LaunchKit(-1, -1, -1, b"", b"", 0)


def test_one_that_is_not_listened_to_any_more_cannot_begin() -> None:
    clones, clone = Clones(KIT, Poller()), Clone("tp-1", is_joined=True)

    with pytest.raises(ContainerMissing, match="it has ended"):
        clones.give(clone, {}, (1, 2), lambda failure: None)
    assert clone.waiting is None
