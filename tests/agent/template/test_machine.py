"""What a template on the disk counts on beside its key: any of it that is another makes other facts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.agent.template import machine
from squall.agent.template.machine import machine_facts, processor_of
from squall.protocol.version import VERSION
from squall.runtime.criu.tool import Tool
from squall.runtime.seccomp import build_template_filter

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8
microcode\t: 0xffffffff
cpu MHz\t\t: 2700.000
flags\t\t: fpu vme avx2 avx512f amx_tile
bogomips\t: 5400.00
power management:

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
stepping\t: 8
cpu MHz\t\t: 2700.000
flags\t\t: fpu vme avx2 avx512f amx_tile

"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd aes sve
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: 0xd40
CPU revision\t: 1

"""


def hash_of(text: str) -> str:
    return processor_of(text.splitlines(keepends=True))


@pytest.mark.parametrize(("text", "was", "becomes"), [
    pytest.param(X86, "GenuineIntel", "AuthenticAMD", id="maker"),
    pytest.param(X86, "cpu family\t: 6", "cpu family\t: 15", id="family"),
    pytest.param(X86, "model\t\t: 143", "model\t\t: 106", id="model"),
    pytest.param(X86, "stepping\t: 8", "stepping\t: 7", id="stepping"),
    pytest.param(X86, " avx512f amx_tile", "", id="fewer flags"),
    pytest.param(X86, "avx2", "avx2 avx_vnni", id="more flags"),
    pytest.param(ARM, "0x41", "0x61", id="implementer"),
    pytest.param(ARM, "0xd40", "0xd0c", id="part"),
    pytest.param(ARM, " sve", "", id="fewer features"),
])  # fmt: skip
def test_another_processor_is_another_one(text: str, was: str, becomes: str) -> None:
    assert was in text

    assert hash_of(text.replace(was, becomes)) != hash_of(text)


@pytest.mark.parametrize(("was", "becomes"), [
    # How fast it is just now, and in which order the kernel lists what it can.
    ("cpu MHz\t\t: 2700.000", "cpu MHz\t\t: 3100.214"),
    ("bogomips\t: 5400.00", "bogomips\t: 5400.02"),
    ("fpu vme avx2 avx512f amx_tile", "amx_tile avx2 fpu vme avx512f"),
    # A machine with more of the same.
    (X86, X86 + X86),
])  # fmt: skip
def test_the_same_processor_on_another_day_is_the_same(was: str, becomes: str) -> None:
    assert was in X86

    assert hash_of(X86.replace(was, becomes)) == hash_of(X86)


def test_that_of_this_machine_is_read() -> None:
    assert machine._processor() not in {hash_of(""), hash_of(X86)}
    assert machine._processor() == machine._processor()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is executed as CRIU, and says its version."""
    loader = tmp_path / "ld.so"
    loader.write_text("#!/bin/sh\necho Version: 4.1\n")
    loader.chmod(0o755)
    monkeypatch.setattr(machine, "find_tool", lambda: Tool(str(tmp_path)))
    return loader


def test_facts_are_those_of_this_machine(tool: Path) -> None:
    facts = machine_facts()

    assert facts is not None
    assert set(facts) == {"CRIU", "kernel", "processor", "Squall"}
    assert facts["CRIU"] == "4.1"
    # Its release alone stays the same when a distribution mends it.
    assert facts["kernel"] == f"{os.uname().release} {os.uname().version}"
    assert facts["processor"] == machine._processor()
    assert facts == machine_facts()


def test_another_squall_or_another_filter_of_system_calls_is_another(
    tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ours() -> str:
        facts = machine_facts()
        assert facts is not None
        return facts["Squall"]

    first = ours()
    with monkeypatch.context() as changed:
        changed.setattr(machine, "VERSION", f"{VERSION}.1")
        assert ours() != first
    program = build_template_filter()
    monkeypatch.setattr(machine, "build_template_filter", lambda: program + program[-8:])
    assert ours() != first


@pytest.mark.parametrize("said", ["exit 1", "echo it is broken"])
def test_criu_that_does_not_run_saves_nothing(tool: Path, said: str) -> None:
    tool.write_text(f"#!/bin/sh\n{said}\n")

    assert machine_facts() is None
