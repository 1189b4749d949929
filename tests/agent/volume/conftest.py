"""What all tests of volumes on a node have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from squall.agent.volume import boot as boot_module


@pytest.fixture
def boot_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has whoever begins next take the machine for one that has begun anew."""
    path = tmp_path / "boot_id"

    def boot() -> None:
        path.write_text(os.urandom(8).hex())

    boot()
    monkeypatch.setattr(boot_module, "_BOOT_ID", path)
    return boot
