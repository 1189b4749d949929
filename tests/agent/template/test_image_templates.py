"""One template of an image is for all functions of an app: whom it is shared by, what is each one's own, and when it
goes."""

from __future__ import annotations

import functools
import signal
from pathlib import Path
from typing import Any

import pytest

from squall.agent.template import templates, wanted
from squall.agent.template.early_files import are_loaded, are_named
from squall.agent.template.faults import EARLY_ENDS_MAX
from squall.protocol.function import Resources
from squall.protocol.mount import MountRef
from squall.protocol.template import NodeTemplateDrop, NodeTemplateDropped, NodeTemplateListing
from squall.runtime.contract import TemplateReport
from squall.runtime.fake import FakeRuntime
from tests.agent.nodes import filled, listed, node, snapshot, specs, started, template_of, told
from tests.agent.parts import until
from tests.agent.world import World

pytestmark = [pytest.mark.long, pytest.mark.timeout(60), pytest.mark.usefixtures("impatient")]

ONE, OTHER = "fu-00000001", "fu-00000002"


def code(world: World, *names: str) -> tuple[MountRef, ...]:
    return (MountRef(world.server.files.add(dict.fromkeys(names, b"1")), "/root"),)


async def has_template(world: World, **changes: Any) -> None:
    """The first start of a function has got the node to make one."""
    _, answer = await started(world, **changes)
    assert answer.path == "plain"
    await until(lambda: world.templates and template_of(world).is_ready)


@pytest.mark.usefixtures("no_pools")
async def test_the_second_function_of_an_app_is_forked_at_its_first_start(world: World) -> None:
    async with node(world) as agent:
        await has_template(world, mounts=code(world, "one.py"))
        _, answer = await started(
            world, function_id=OTHER, mounts=code(world, "two.py"), resources=Resources(cpu_milli=500), version=7
        )
        await started(world)

        assert answer.path == "fork"
        assert len(world.templates) == 1
        (template,), clones, (plain,) = specs(world, "tp-"), specs(world, "ce-"), specs(world, "ct-")
        # It has nobody's files, and the ids of nobody's own containers; its clones have their function's, and its ids.
        assert template.layers == plain.layers[:1]
        assert "/sets/" in clones[0].layers[-1]
        assert clones[0].layers[-1] != plain.layers[-1]
        assert [one.id_range for one in clones] == [template.id_range] * 2
        assert plain.id_range != template.id_range
        assert clones[0].env["SQUALL_FUNCTION_ID"] == OTHER
        assert clones[0].labels["squall.function"] == OTHER
        (shown,) = await told(world)
        assert (shown.kind, shown.function_id, shown.clone_count) == ("image", "", 2)
        await agent.end_all(0.0)
    assert not world.left()


@pytest.mark.parametrize(
    "changes", [{"app_id": "ap-00000002"}, {"env": {"A": "2"}}, {"is_network_blocked": True}], ids=str
)
async def test_other_apps_and_other_variables_share_none(world: World, changes: dict[str, Any]) -> None:
    async with node(world):
        await has_template(world)
        _, answer = await started(world, function_id=OTHER, **changes)

        assert answer.path == "plain"
        await until(lambda: len(world.templates) == 2)


async def test_the_next_agent_knows_whose_ids_its_clones_have(world: World) -> None:
    async with node(world):
        await has_template(world)
        container_id, answer = await started(world, function_id=OTHER)
        assert answer.path != "plain"
        before = specs(world, "tp-")[0].id_range

    async with node(world) as agent:
        assert agent.containers._known[container_id].outfit.owner == "ap-00000001/"
        _, again = await started(world, function_id="fu-00000003")

        assert again.path != "plain"
        assert {one.id_range for one in specs(world, "ce-")} == {before}
        assert len(world.templates) == 1
        await agent.end_all(0.0)
    assert not world.left()


async def test_what_is_ready_for_files_that_are_edited_goes_and_the_template_stays(world: World) -> None:
    async with node(world):
        await has_template(world, mounts=code(world, "one.py"))
        await started(world, mounts=code(world, "one.py"))
        await started(world, mounts=code(world, "one.py"))
        await filled(world)
        before = {cell.cell_id for cell in (*template_of(world).cells, *template_of(world).parked)}
        with world.agent.templates._pools.starting():
            _, answer = await started(world, mounts=code(world, "one.py", "new.py"))

            assert answer.path == "fork"
            assert specs(world, "ce-")[-1].container_id not in before
            await until(lambda: not before & set(world.machine.prepared))
        assert len(world.templates) == 1


async def test_what_is_ready_is_for_the_functions_that_were_started_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "RESERVES_MAX", 2)
    async with node(world):
        await has_template(world)
        await started(world, function_id=OTHER)
        await started(world)
        await filled(world)
        reserves = template_of(world).reserves
        of_one, of_other = [
            {cell.cell_id for cell in (*reserves[one].cells, *reserves[one].parked)} for one in (ONE, OTHER)
        ]
        assert of_one <= set(world.machine.prepared)
        assert of_other & set(world.machine.prepared)

        with world.agent.templates._pools.starting():
            await started(world, function_id="fu-00000003")

            assert list(reserves) == [ONE, "fu-00000003"]
            await until(lambda: not of_other & set(world.machine.prepared))
            assert of_one <= set(world.machine.prepared)


@pytest.mark.usefixtures("no_pools")
async def test_where_memory_is_short_one_is_made_for_what_is_started_often(world: World) -> None:
    async with node(world, template_memory_mib=65) as agent:
        for number in range(3):
            world.now += 1.0
            container_id, _ = await snapshot(world, function_id=f"fu-{number:08}")
            await world.end(container_id)
        assert agent.templates.memory_bytes() == 60 * 2**20  # within bounds, without room for another one
        world.may_report.clear()

        async def has_got_going() -> bool:
            container_id, answer = await started(world, function_id="fu-00000009")
            await until(lambda: agent.containers._known[container_id].outfit.has_guest)
            assert answer.path == "plain"
            return agent.templates._wanted.is_coming(agent.templates._wanted.key_of("fu-00000009"))

        assert [await has_got_going() for _ in range(3)] == [False, False, True]

        world.may_report.set()
        await until(lambda: any(one.kind == "image" and one.is_ready for one in agent.templates._roster.live.values()))
        left = sorted((one.kind, one.request.function_id) for one in agent.templates._roster.live.values())
        assert left == [("function", "fu-00000001"), ("function", "fu-00000002"), ("image", "")]


@pytest.mark.parametrize("name", ["sitecustomize.py", "random.py", "lib/usercustomize.py", "squall/__init__.py"])
async def test_files_that_an_interpreter_may_load_are_a_part_of_it(world: World, name: str) -> None:
    async with node(world):
        await has_template(world, mounts=code(world, name))
        (template,) = specs(world, "tp-")
        assert "/sets/" in template.layers[-1]
        _, answer = await started(world, function_id=OTHER, mounts=code(world, name, "more.py"))
        assert answer.path == "plain"
        _, same = await started(world, function_id="fu-00000003", mounts=code(world, name))
        assert same.path != "plain"


def lay_out(tree: Path, *names: str) -> str:
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    return str(tree)


def test_which_files_an_interpreter_may_load(tmp_path: Path) -> None:
    python = "/usr/local/bin/python3"
    harmless = lay_out(
        tmp_path / "a", "root/app.py", "root/_own.py", "root/pkg/random.py", "root/__init__.py", "data/x"
    )
    assert not are_loaded(harmless, python)
    for number, name in enumerate(
        ("root/logging/__init__.py", "root/.local/lib/x", "usr/lib/x.so", "etc/ld.so.conf", "venv/site-packages/x.py",
         "data/x.pth", "root/pkg/sitecustomize/__init__.py", "root/typing.py", "root/_weakref.abi3.so")
    ):  # fmt: skip
        assert are_loaded(lay_out(tmp_path / str(number), name), python), name
    assert are_loaded(lay_out(tmp_path / "b", "venv/x"), "/venv/bin/python")
    assert are_loaded(lay_out(tmp_path / "c", "web/.local/x"), python, "/web")
    assert are_loaded(lay_out(tmp_path / "d", *(f"data/{number}" for number in range(10_001))), python)


@pytest.mark.parametrize(
    ("value", "is_named"),
    [("/root/openssl.cnf", True), ("openssl.cnf", True), ("../root/openssl.cnf", True), ("/data/modules", True),
     ("/usr/lib:/data/modules/", True), ("file=/root/./openssl.cnf", True), ("/root", False), ("/", False),
     ("/root/", False), ("/data/../root", False), ("app", False), ("/root/other.cnf", False), ("/home/me", False),
     ("x" * 5_000, False), ("/root/openssl.cnf\0", False), ("", False), ("a " * 20_000, True)],
)  # fmt: skip
def test_which_variables_name_a_file(tmp_path: Path, value: str, is_named: bool) -> None:
    tree = lay_out(tmp_path, "root/openssl.cnf", "root/app/x.py", "data/modules/fips.so", "home/me/x")

    assert are_named(tree, ["production", value], ("/home/me", "/root")) == is_named


@pytest.mark.parametrize("env", [{"OPENSSL_CONF": "/root/one.py"}, {"PYTHONWARNINGS": "error::one.Warn"}], ids=str)
async def test_files_that_a_variable_names_are_a_part_of_it(world: World, env: dict[str, str]) -> None:
    async with node(world):
        await has_template(world, mounts=code(world, "one.py"), env={"MODE": "one.txt"})
        assert "/sets/" not in specs(world, "tp-")[-1].layers[-1]

        _, answer = await started(world, mounts=code(world, "one.py"), env=env)
        assert answer.path == "plain"
        await until(lambda: len(world.templates) == 2)
        assert "/sets/" in specs(world, "tp-")[-1].layers[-1]


async def test_it_stays_while_its_app_lives_and_goes_with_the_last_function_that_has_a_use_for_it(world: World) -> None:
    async with node(world) as agent:
        await has_template(world)
        await started(world, function_id=OTHER)
        world.now += 1_000.0
        agent.templates._roster.keep_within()
        assert template_of(world).is_ready

        # Secrets that are new: the next function still has the ones of before.
        await started(world, env={"A": "new"})
        assert len([one for one in await told(world) if one.state == "ready"]) >= 1
        await started(world, function_id=OTHER, env={"A": "new"})

        await until(lambda: world.templates[-1].env.get("A") == "new" and template_of(world).is_ready)
        (old,) = [one for one in await told(world) if one.state == "dropped"]
        assert "new" in old.cause


async def crash(world: World, **changes: Any) -> None:
    container_id, answer = await started(world, **changes)
    assert answer.path != "plain"
    known = world.agent.containers._known[container_id]
    await until(functools.partial(getattr, known.outfit, "has_guest"))
    await FakeRuntime(world.machine).kill(known.runtime_id, signal.SIGSEGV)
    await known.removed.wait()


async def test_a_function_whose_clones_crash_is_started_plainly_and_the_others_are_not(world: World) -> None:
    async with node(world):
        await has_template(world)
        await crash(world, function_id=OTHER)  # once: that may be its input
        for _ in range(EARLY_ENDS_MAX):
            await crash(world)

        assert (await started(world))[1].path == "plain"
        assert (await started(world, function_id=OTHER))[1].path != "plain"
        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        assert (unfit.function_id, unfit.kind) == (ONE, "image")


async def test_what_is_remembered_of_one_function_is_dropped_alone(world: World) -> None:
    async with node(world) as agent:
        await has_template(world)
        await started(world, function_id=OTHER)
        template = template_of(world)
        agent.templates._roster.unfit_for(template, ONE, "its clones crash")
        assert (await started(world))[1].path == "plain"

        (unfit,) = [one for one in await told(world) if one.state == "unfit"]
        drop = NodeTemplateDrop((unfit.template_id,))
        dropped = await world.server.peer.request("NodeTemplateDrop", drop, NodeTemplateDropped)

        assert dropped.template_ids == (unfit.template_id,)
        assert template.is_ready
        assert [one.state for one in await told(world)] == ["ready"]
        assert (await started(world))[1].path != "plain"


async def test_a_function_that_is_gone_takes_what_is_remembered_of_it_alone(world: World) -> None:
    async with node(world) as agent:
        await has_template(world)
        template = template_of(world)
        for function_id in (ONE, OTHER):
            agent.templates._roster.unfit_for(template, function_id, "its clones crash")

        agent.templates.drop_of("ap-00000001", ONE)

        assert [one.function_id for one in agent.templates._verdicts] == [OTHER]


@pytest.mark.parametrize("functions", [None, {OTHER: 1}], ids=["gone", "deployed"])
async def test_variables_of_a_function_whose_clones_crash_go_with_it(
    world: World, functions: dict[str, int] | None
) -> None:
    async with node(world) as agent:
        await has_template(world, env={"A": "secret"})
        for _ in range(EARLY_ENDS_MAX):
            await crash(world, env={"A": "secret"})
        template = template_of(world)
        assert not template.users

        agent.templates.drop_of("ap-00000001", "" if functions else ONE, functions=functions)

        assert template.state == "dropped"
        await template.gone.wait()


async def test_what_cannot_be_forked_with_its_function_is_from_the_template_of_all(world: World) -> None:
    async with node(world):
        await has_template(world, function_id=OTHER)
        world.report = TemplateReport(is_ready=False, cause="a thread runs")

        _, answer = await snapshot(world)

        assert (answer.path, answer.cause) == ("fork", "a thread runs")
        assert (await started(world))[1].path != "plain"


async def test_one_that_is_about_to_be_made_is_told_to_who_asks_about_its_function(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted, "SETTLE_S", 60.0)
    async with node(world) as agent:
        await snapshot(world, function_id="fu-00000003")
        await started(world)

        await until(lambda: agent.templates.listing(ONE).is_one_coming)
        assert await listed(world, ONE) == NodeTemplateListing((), is_one_coming=True)
        assert await listed(world, OTHER) == NodeTemplateListing(())


async def test_what_a_function_is_started_from_is_told_without_that_of_others(world: World) -> None:
    async with node(world) as agent:
        await has_template(world)
        await started(world)
        await started(world)
        await snapshot(world, function_id="fu-00000003")
        # It is about to be started from the same one.
        template = next(one for one in agent.templates._roster.live.values() if one.kind == "image")
        agent.templates._wanted.started_with(OTHER, template.key)
        await until(lambda: template.cells)

        assert len(await told(world)) == 2
        (of_one,) = await told(world, ONE)
        (of_other,) = await told(world, OTHER)

        assert of_one.template_id == of_other.template_id == template.template_id
        assert of_one.cell_count
        assert not of_other.cell_count


async def test_the_server_is_told_which_functions_have_one(world: World) -> None:
    async with node(world, report_period_s=0.05):
        await has_template(world)
        await started(world, function_id=OTHER)
        world.now += 1.0
        await snapshot(world, function_id="fu-00000003")

        await until(lambda: world.server.reports and len(world.server.reports[-1].template_function_ids) == 3)
        assert world.server.reports[-1].template_function_ids == ("fu-00000003", ONE, OTHER)
