"""What `squall function info` says of a function."""

from __future__ import annotations

from squall.cli.function import info_lines
from squall.protocol.function import BY_FILE, GVISOR, Definition, FunctionSpec
from squall.protocol.records import replace

PLAIN = FunctionSpec("fu-1", "ap-1", "square", Definition(BY_FILE, "hello", "square"), "im-1")


def test_snapshots_and_another_kernel_are_told() -> None:
    lines = dict(info_lines(replace(PLAIN, is_snapshot_enabled=True, isolation=GVISOR)))

    assert lines["isolation"] == "gvisor"
    assert lines["snapshot"] == "of its memory: containers begin as copies"


def test_what_every_function_has_is_not_told() -> None:
    assert not {"isolation", "snapshot", "network", "retries"} & dict(info_lines(PLAIN)).keys()
