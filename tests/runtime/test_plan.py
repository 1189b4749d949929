"""A plan can be read without root: what is done, in which order, with which powers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from squall.runtime import operations as op
from squall.runtime.execute import PERFORM
from squall.runtime.plan import (
    CONTROL_ENV,
    KEPT_CAPABILITIES,
    plan_cell,
    plan_exec,
    plan_exec_entry,
    plan_start,
    plan_template,
)
from squall.runtime.spec import Bind, ContainerSpec, ExecSpec, IdRange, Limits, NetworkSlot
from squall.runtime.syscalls import MS_RDONLY

TASKS = ["/sys/fs/cgroup/cpu/squall/x/ct-1/tasks"]


def make_spec(**fields: Any) -> ContainerSpec:
    spec = ContainerSpec(
        container_id="ct-1",
        layers=["/layers/a", "/layers/b"],
        state_dir="/data/ct-1",
        id_range=IdRange(100_000),
        argv=["python3", "-m", "guest"],
        env={"A": "1"},
    )
    return replace(spec, **fields)


def flat(phases: list[op.Phase]) -> list[op.Operation]:
    return [operation for phase in phases for operation in phase.operations]


def of_kind(phases: list[op.Phase], kind: type) -> list[Any]:
    return [operation for operation in flat(phases) if isinstance(operation, kind)]


def test_every_operation_can_be_performed() -> None:
    assert set(PERFORM) == set(get_args(op.Operation))


def test_root_operations_end_where_the_user_namespace_begins() -> None:
    spec = make_spec(binds=[Bind("/a", "/b")], limits=Limits(tmp_bytes=1), is_upper_idmapped=True)

    operations = flat(plan_start(spec, TASKS))

    border = operations.index(op.EnterUserNamespace(spec.id_range))
    assert all(isinstance(operation, get_args(op.RootOperation)) for operation in operations[: border + 1])
    assert all(isinstance(operation, get_args(op.ConfinedOperation)) for operation in operations[border + 1 :])


def test_filter_is_installed_last_before_the_program() -> None:
    for phases in (plan_start(make_spec(), TASKS), plan_exec(ExecSpec(["sh"], {}, has_pty=True), make_spec())):
        kinds = [type(operation) for operation in flat(phases)]
        assert kinds[-2:] == [op.FilterCalls, op.Execute]
        assert kinds.count(op.Execute) == 1
        assert kinds.index(op.ForbidPrivileges) < kinds.index(op.FilterCalls)


def test_cgroups_are_opened_while_they_can_be_seen() -> None:
    operations = flat(plan_start(make_spec(), TASKS))

    assert operations[0] == op.OpenCgroup(tuple(TASKS))
    assert op.EnterCgroup() in operations


def test_files_of_the_machine_are_taken_before_and_attached_after_the_pivot() -> None:
    phases = plan_start(make_spec(binds=[Bind("/a", "/b")]), TASKS)

    operations = flat(phases)
    pivot = operations.index(op.PivotRoot("/data/ct-1/mnt/root"))
    assert operations.index(op.TakeTree("/a", "bind-0", is_read_only=True, is_idmapped=False)) < pivot
    assert operations.index(op.AttachTree("bind-0", "/b")) > pivot


def test_inner_bind_is_attached_over_the_outer_one() -> None:
    binds = [Bind("/cache", "/data/cache"), Bind("/data", "/data")]

    attached = of_kind(plan_start(make_spec(binds=binds), TASKS), op.AttachTree)

    assert [tree.target for tree in attached if tree.name.startswith("bind")] == ["/data", "/data/cache"]


def test_binds_come_after_the_masks_they_may_have_to_cover() -> None:
    operations = flat(plan_start(make_spec(binds=[Bind("/a", "/b")]), TASKS))

    last_mask = max(index for index, operation in enumerate(operations) if isinstance(operation, op.MaskPath))
    assert operations.index(op.AttachTree("bind-0", "/b")) > last_mask


def test_network_slot_is_joined_and_names_its_resolver() -> None:
    slot = NetworkSlot("sq1", "/run/netns/sq1", "10.0.0.2/24", "10.0.0.1", "nameserver 10.0.0.1\n", {"PROXY": "p"})

    phases = plan_start(make_spec(network=slot), TASKS)

    assert of_kind(phases, op.JoinNetwork) == [op.JoinNetwork("/run/netns/sq1")]
    assert of_kind(phases, op.RaiseLoopback) == []
    texts = {written.name: written.text for written in of_kind(phases, op.WriteScratchFile)}
    assert texts["resolv.conf"] == "nameserver 10.0.0.1\n"
    assert "10.0.0.2\tsquall" in texts["hosts"]
    assert of_kind(phases, op.Execute)[0].env == {"PROXY": "p", "A": "1"}


def test_environment_of_the_spec_counts_above_the_slots() -> None:
    slot = NetworkSlot("sq1", "/run/netns/sq1", "10.0.0.2", "10.0.0.1", "", {"A": "slot"})

    assert of_kind(plan_start(make_spec(network=slot), TASKS), op.Execute)[0].env == {"A": "1"}


def test_without_a_slot_there_is_only_loopback() -> None:
    phases = plan_start(make_spec(), TASKS)

    assert of_kind(phases, op.RaiseLoopback) == [op.RaiseLoopback()]
    assert of_kind(phases, op.JoinNetwork) == []


def test_memory_file_systems_have_sizes_and_belong_to_the_range() -> None:
    limits = Limits(tmp_bytes=123, shm_bytes=456)

    mounts = {mount.target: mount for mount in of_kind(plan_start(make_spec(limits=limits), TASKS), op.MountKind)}

    assert mounts["/tmp"].options == "mode=1777,size=123,uid=100000,gid=100000"
    assert "size=456" in mounts["/dev/shm"].options
    assert "gid=100005" in mounts["/dev/pts"].options


def test_tmp_stays_in_the_upper_without_a_size() -> None:
    targets = [mount.target for mount in of_kind(plan_start(make_spec(), TASKS), op.MountKind)]

    assert "/tmp" not in targets


def test_root_keeps_few_capabilities_and_others_none() -> None:
    as_root = of_kind(plan_start(make_spec(), TASKS), op.DropCapabilities)
    as_user = of_kind(plan_start(make_spec(user=(1000, 1000)), TASKS), op.DropCapabilities)

    assert as_root == [op.DropCapabilities(tuple(KEPT_CAPABILITIES.values()))]
    assert as_user == [op.DropCapabilities(())]
    # SYS_ADMIN, SYS_PTRACE, SYS_MODULE, NET_ADMIN, NET_RAW, SYS_RAWIO, DAC_READ_SEARCH, BPF
    assert not {21, 19, 16, 12, 13, 17, 2, 39} & set(KEPT_CAPABILITIES.values())


def test_what_tells_of_the_machine_is_covered_and_its_settings_are_read_only() -> None:
    phases = plan_start(make_spec(), TASKS)

    covered = {mask.path for mask in of_kind(phases, op.MaskPath)}
    read_only = {protected.path for protected in of_kind(phases, op.ProtectPath)}
    (system,) = [mount for mount in of_kind(phases, op.MountKind) if mount.target == "/sys"]
    memory = {"/proc/kcore", "/proc/kmsg", "/proc/vmallocinfo", "/sys/kernel/debug", "/sys/kernel/tracing"}
    secrets = {"/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/sys/kernel/security"}
    controls = {"/proc/sysrq-trigger", "/proc/acpi", "/proc/scsi", "/sys/devices/virtual/powercap", "/sys/fs/cgroup"}
    assert covered >= memory | secrets | controls
    assert read_only == {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"}
    assert system.flags & MS_RDONLY


def test_exec_enters_the_cgroup_first_and_has_no_init() -> None:
    spec = ExecSpec(["sh"], {"B": "2"}, has_pty=True, rows=10, columns=20)

    entry, phases = plan_exec_entry(TASKS), plan_exec(spec, make_spec())

    assert flat(entry)[-2:] == [op.OpenCgroup(tuple(TASKS)), op.EnterCgroup()]
    assert of_kind(phases, op.OpenTerminal) == [op.OpenTerminal(10, 20)]
    assert of_kind(phases, op.Execute) == [op.Execute(("sh",), {"B": "2"}, "/", has_init=False)]


def test_plan_prints_as_one_line_an_operation() -> None:
    lines = [repr(operation) for operation in flat(plan_start(make_spec(), TASKS))]

    assert "MountScratch(path='/data/ct-1/mnt')" in lines
    assert not any("\n" in line for line in lines)


def test_images_are_taken_in_one_visit_and_stacked_where_they_belong() -> None:
    spec = make_spec(layers=["/layers/a", "/images/b", "/images/c"])

    phases = plan_start(spec, TASKS, {"/images/b": "/1", "/images/c": "/2"})

    assert of_kind(phases, op.TakeLayer) == [op.TakeLayer("/layers/a", "layer-0")]
    assert of_kind(phases, op.TakeImages) == [op.TakeImages({"layer-1": "/1", "layer-2": "/2"})]
    assert of_kind(phases, op.MountRoot)[0].layers == ["layer-0", "layer-1", "layer-2"]


def test_nobody_goes_among_the_images_for_directories_alone() -> None:
    assert of_kind(plan_start(make_spec(), TASKS), op.TakeImages) == []


# ---- templates and cells


def test_first_process_of_a_template_only_waits_and_has_no_capability() -> None:
    phases = plan_start(make_spec(is_template=True), TASKS)

    assert flat(phases)[-1] == op.Wait(is_child_of_spawner=True)
    assert of_kind(phases, op.DropCapabilities) == [op.DropCapabilities(())]
    assert of_kind(phases, op.Execute) == []


def test_template_has_no_capability_and_its_filter_before_its_first_line() -> None:
    phases = plan_template(make_spec(is_template=True, user=(0, 0)))

    assert of_kind(phases, op.DropCapabilities) == [op.DropCapabilities(())]
    kinds = [type(operation) for operation in flat(phases)]
    assert kinds[-2:] == [op.FilterCalls, op.Execute]
    assert of_kind(phases, op.FilterCalls) == [op.FilterCalls(is_template=True)]
    (execute,) = of_kind(phases, op.Execute)
    (kept,) = of_kind(phases, op.KeepControl)
    assert execute.env[CONTROL_ENV] == str(kept.number)


def test_only_templates_wear_the_filter_of_templates() -> None:
    for phases in (plan_start(make_spec(), TASKS), plan_exec(ExecSpec(["sh"], {}), make_spec())):
        assert of_kind(phases, op.FilterCalls) == [op.FilterCalls(is_template=False)]
    assert of_kind(list(plan_cell(make_spec(), TASKS).first), op.FilterCalls) == [op.FilterCalls(is_template=False)]


def test_every_mount_of_a_cell_is_made_before_its_first_process_owns_the_copies() -> None:
    plan = plan_cell(make_spec(binds=[Bind("/a", "/b")]), TASKS)

    mounts = (op.MountKind, op.MountRoot, op.AttachTree, op.ProtectPath, op.MaskPath)
    assert not [operation for operation in flat(list(plan.first)) if isinstance(operation, mounts)]
    first = [type(operation) for operation in flat(list(plan.first))]
    assert first == [
        op.EnterCgroup, op.OwnMounts, op.DropCapabilities, op.ForbidPrivileges, op.FilterCalls, op.Wait,
    ]  # fmt: skip
    assert of_kind(list(plan.first), op.DropCapabilities) == [op.DropCapabilities(())]


def test_cell_has_what_a_container_has() -> None:
    spec = make_spec(binds=[Bind("/a", "/b")], limits=Limits(tmp_bytes=1))
    plain, plan = plan_start(spec, TASKS), plan_cell(spec, TASKS)

    cell = [*plan.root, *plan.system]
    for kind in (op.MountRoot, op.PivotRoot, op.MountKind, op.MakeDevice, op.MakeLink, op.AttachTree, op.ProtectPath,
                 op.MaskPath, op.SetHostname, op.TakeLayer, op.TakeTree):  # fmt: skip
        assert of_kind(cell, kind) == of_kind(plain, kind), kind


def test_settings_of_a_bare_network_are_written_while_they_are_writable() -> None:
    operations = flat(list(plan_cell(make_spec(), TASKS).system))

    writes = [index for index, one in enumerate(operations) if isinstance(one, op.WriteNetworkSetting)]
    assert writes
    proc = operations.index(next(one for one in operations if isinstance(one, op.MountKind) and one.kind == "proc"))
    assert proc < min(writes)
    assert max(writes) < operations.index(op.ProtectPath("/proc/sys"))
