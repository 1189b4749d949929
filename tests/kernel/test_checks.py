"""The checks on the machine the tests run on: they try things for real and leave nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from squall.runtime.checks import run_checks
from squall.runtime.checks.kernel import run_probe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="trying mounts and namespaces needs root")


def test_probe_tries_every_feature_and_leaves_nothing(data_dir: Path) -> None:
    checks = run_probe(str(data_dir))

    assert [check.name for check in checks] == ["user namespaces", "idmapped mounts", "overlay", "erofs"]
    assert list(data_dir.iterdir()) == []
    for check in checks:
        assert check.finding
        assert bool(check.fix) == (check.status != "ok")


def test_probe_names_a_file_system_that_cannot_carry_layers(data_dir: Path) -> None:
    # proc has no id-mapped mounts, no overlay goes on it, and nothing can be made in it.
    (check,) = run_probe("/proc/self")

    assert check.name == "probe"
    assert check.status == "warn"


def test_whole_machine_is_checked_in_a_few_seconds(data_dir: Path) -> None:
    start = time.monotonic()
    checks = run_checks(str(data_dir), now_s=time.time(), ports=[0], env=os.environ)
    duration_s = time.monotonic() - start

    names = {check.name for check in checks}
    assert {"root", "kernel", "cgroups", "nft", "firewall", "port 0", "disk", "clock", "overlay"} <= names
    assert all(check.fix for check in checks if check.status != "ok")
    assert duration_s < 30
