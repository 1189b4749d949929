"""What a container under gVisor is made of can be read without root, and without runsc."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squall.runtime import operations as op
from squall.runtime.checks.check import Check
from squall.runtime.checks.gvisor import check_runsc
from squall.runtime.errors import FeatureMissing
from squall.runtime.gvisor import bundle, executor, program
from squall.runtime.gvisor.plan import plan_exec, plan_signal, plan_start
from squall.runtime.gvisor.slot import note_slot, restore_slot
from squall.runtime.launch import LaunchKit
from squall.runtime.plan import KEPT_CAPABILITIES
from squall.runtime.poll import Poller
from squall.runtime.spec import GVISOR, Bind, ContainerSpec, ExecSpec, IdRange, Limits, NetworkSlot

SPEC = ContainerSpec(
    container_id="ct-1",
    layers=["/layers/a"],
    state_dir="/data/ct-1",
    id_range=IdRange(100_000),
    argv=["python3", "-m", "guest"],
    env={"A": "1"},
    isolation=GVISOR,
)
PROGRAMS = {"runsc": "/usr/bin/runsc", "init": "/usr/bin/tini-static"}


def config(**fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(bundle.config_json(replace(SPEC, **fields)))
    return made


def flat(phases: list[op.Phase]) -> list[op.Operation]:
    return [operation for phase in phases for operation in phase.operations]


def test_program_runs_under_an_init_with_the_capabilities_of_any_container() -> None:
    process = config()["process"]

    assert process["args"] == [bundle.INIT, "-g", "--", "python3", "-m", "guest"]
    assert process["capabilities"]["bounding"] == [f"CAP_{name}" for name in KEPT_CAPABILITIES]
    assert process["noNewPrivileges"] is True


def test_ordinary_user_has_no_capabilities() -> None:
    process = config(user=(1000, 1001))["process"]

    assert (process["user"]["uid"], process["user"]["gid"]) == (1000, 1001)
    assert process["capabilities"] == {"bounding": [], "effective": [], "permitted": []}


def test_ids_are_those_of_the_range_and_the_network_is_the_one_it_is_started_in() -> None:
    linux = config()["linux"]

    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    assert {"type": "network", "path": "/proc/self/ns/net"} in linux["namespaces"]


def test_variables_of_the_program_count_more_than_those_of_the_slot() -> None:
    slot = NetworkSlot("1", "/pins/1", "10.0.0.2", "10.0.0.1", "", {"HTTP_PROXY": "theirs", "A": "slot"})

    env = config(network=slot)["process"]["env"]

    assert {"HTTP_PROXY=theirs", "A=1"} <= set(env)


def test_memory_file_systems_have_their_sizes_and_binds_come_after_those_they_lie_in() -> None:
    binds = [Bind("/b", "/data/cache"), Bind("/a", "/data", is_read_only=False)]

    mounts = config(binds=binds, limits=Limits(tmp_bytes=4_096))["mounts"]

    by_target = {mount["destination"]: mount for mount in mounts}
    assert "size=4096" in by_target["/tmp"]["options"]
    assert f"size={SPEC.limits.shm_bytes}" in by_target["/dev/shm"]["options"]
    assert [mount["source"] for mount in mounts[-2:]] == ["/binds/1", "/binds/0"]
    assert "ro" in by_target["/data/cache"]["options"]
    assert "rw" in by_target["/data"]["options"]


def test_without_a_size_temporary_files_are_on_the_containers_disk() -> None:
    assert {"type": "bind", "source": "/root/tmp"}.items() <= {
        mount["destination"]: mount for mount in config()["mounts"]
    }["/tmp"].items()


def test_all_that_is_taken_of_the_machine_is_attached_in_what_runsc_sees() -> None:
    phases = plan_start(replace(SPEC, binds=[Bind("/a", "/x")]), [], {}, programs=PROGRAMS, error_fd=7)

    taken = {operation.name for operation in flat(phases) if isinstance(operation, op.TakeTree | op.WriteScratchFile)}
    furnish = next(operation for operation in flat(phases) if isinstance(operation, op.FurnishSandbox))
    assert taken == set(furnish.trees.values())
    assert flat(phases).index(furnish) < flat(phases).index(op.PivotRoot("/data/ct-1/mnt"))


def test_what_runs_beside_the_first_program_has_no_power_over_the_machine() -> None:
    for phases in (plan_exec(ExecSpec(["sh"], {}, has_pty=True), SPEC, "1"), plan_signal(15)):
        operations = flat(phases)
        assert operations.index(op.DropCapabilities(())) < operations.index(op.ForbidPrivileges())
        assert isinstance(operations[-1], op.ExecuteRunsc)


def test_limits_leave_room_for_the_sandbox() -> None:
    made = executor.GvisorExecutor(LaunchKit(-1, -1, -1, b"", b"", 40), Poller())

    limits = made.limits(replace(SPEC, limits=Limits(memory_bytes=2**26, pids_max=10, cpu_milli=500)))
    unlimited = made.limits(replace(SPEC, limits=Limits(pids_max=None)))

    assert (limits.memory_bytes, limits.pids_max) == (2**26 + executor.OWN_MEMORY_BYTES, 10 + executor.OWN_THREADS)
    assert limits.cpu_milli == 500
    assert (unlimited.memory_bytes, unlimited.pids_max) == (None, None)


def fake_runsc(path: Path, says: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


def test_machine_without_runsc_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "RUNSC_PROGRAMS", ("/no/such/runsc",))

    with pytest.raises(FeatureMissing, match="runsc is missing on this node; install the package runsc"):
        program.find_runsc()
    assert check_runsc() == Check(
        "runsc",
        "warn",
        "cannot run containers under gVisor: runsc is missing on this node",
        "install the package runsc, of 20240729 or newer (Debian 12 has it in its backports; `make setup` and "
        "`scripts/install-runsc` get it)",
    )


@pytest.mark.parametrize(
    ("says", "named"),
    [("runsc version 0.0~20221219.0", "is of 20221219"), ("usage: runsc", "does not say its version")],
    ids=["old", "silent"],
)
def test_runsc_that_will_not_do_is_named(
    says: str, named: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "RUNSC_PROGRAMS", (fake_runsc(tmp_path / "runsc", says),))

    with pytest.raises(FeatureMissing, match=named):
        program.find_runsc()


def test_first_runsc_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = fake_runsc(tmp_path / "runsc", "runsc version release-20250101.0")
    monkeypatch.setattr(program, "RUNSC_PROGRAMS", ("/no/such/runsc", path))

    assert program.find_runsc() == path
    assert check_runsc() == Check("runsc", "ok", f"{path}, of 20250101")


@pytest.mark.parametrize("left_bytes", [0, 20])
def test_note_of_a_slot_that_a_crash_has_left_empty_or_half_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, left_bytes: int
) -> None:
    slot = NetworkSlot("s1", "/no/such/slot", "198.18.0.6/30", "198.18.0.5", "")
    note_slot(replace(SPEC, state_dir=str(tmp_path), network=slot))
    (noted,) = tmp_path.iterdir()
    noted.write_bytes(noted.read_bytes()[:left_bytes])

    restore_slot(str(tmp_path))

    assert str(noted) in caplog.text
    assert list(tmp_path.iterdir()) == []
