"""Volumes of forks: empty places that are made ahead, and versions that come when somebody begins."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure, VolumeBusy
from squall.runtime.spec import Bind
from tests.agent.parts import until
from tests.kernel.containers import ENV, TIMEOUT_S, Running
from tests.kernel.forge import BINDS, Forge, exists
from tests.kernel.test_hostile_forks import spawner_pid
from tests.kernel.test_volumes import Versions

LIST = "import os; print(sorted(os.listdir('/data')), open('/data/a').read())"
PAUSE = "import signal; print('up', flush=True); signal.pause()"


@pytest.fixture
def versions(data_dir: Path) -> Versions:
    return Versions(data_dir)


@pytest.mark.parametrize("steps", [(), (False,), (True,), (False, True)])
async def test_a_fork_sees_the_version_that_it_begins_with(
    steps: tuple[bool, ...], forge: Forge, versions: Versions
) -> None:
    template = await forge.ready()
    volume = versions.make({"a": b"one", "dir/b": b"two"})
    look = "import os; print(sorted(os.listdir('/data')), open('/data/a').read(), was_told_to_wait)"
    spec = forge.spec(template, look, volumes=[volume])
    for is_parked in steps:
        await forge.runtime.prepare(spec, is_parked=is_parked)

    if steps:
        started = await forge.runtime.begin(spec.container_id, spec.env, [volume])
    else:
        started = await forge.runtime.start(spec)

    ended = await forge.containers.finish(Running(spec.container_id, started))
    assert (ended.stdout, ended.stderr) == (f"['a', 'dir'] one {True in steps}\n", "")
    assert "volumes" in started.phase_ms


async def test_what_it_writes_is_its_own(forge: Forge, versions: Versions) -> None:
    write = "open('/data/new', 'w').write('w'); open('/data/a', 'a').write('+')"
    mine, other = versions.make({"a": b"one"}), versions.make({"a": b"one"})
    template = await forge.ready(volumes=[versions.make({"a": b"one"})])
    waits = await forge.clone(template, PAUSE, volumes=[other])
    await waits.stdout.read_until("up")

    await forge.run(template, write, volumes=[mine])

    assert [versions.written(number) for number in (1, 2, 3)] == [["a", "new"], [], []]
    seen = await forge.containers.exec(waits, "sh", "-c", "cat /data/a; ls /data")
    assert seen.stdout == "onea\n"


async def test_a_read_only_volume_takes_no_write_of_a_fork(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    write = """
import os
for write in (lambda: open('/data/b', 'w'), lambda: os.unlink('/data/a'), lambda: os.chmod('/data/a', 0o600)):
    try:
        write()
    except OSError as error:
        print(error.strerror)
"""

    ended = await forge.run(template, LIST + write, volumes=[versions.make({"a": b"one"}, writable="")])

    assert ended.stdout == "['a'] one\n" + 3 * "Read-only file system\n"


async def test_a_fork_that_waits_sees_and_keeps_nothing_of_a_volume(forge: Forge, versions: Versions) -> None:
    volume = versions.make({"a": b"one"})
    late = "import os; open('/seen', 'w').write(repr((os.listdir('/data'), os.access('/data', os.W_OK))))"
    hook = versions.contents.parent / "late.py"
    hook.write_text(late)
    binds = (*BINDS, Bind(str(hook), "/late.py"))
    template = await forge.ready("--late", "/late.py", binds=binds)

    spec = forge.spec(template, "print(open('/seen').read()); " + LIST, volumes=[volume], binds=binds)
    await forge.runtime.prepare(spec, is_parked=True)
    (status,) = [one for one in await forge.runtime.list() if one.container_id == spec.container_id]
    assert os.listdir(f"/proc/{status.pid}/root/data") == [".squall"]
    started = await forge.runtime.begin(spec.container_id, spec.env, [volume])

    ended = await forge.containers.finish(Running(spec.container_id, started))
    assert ended.stdout == "(['.squall'], False)\n['a'] one\n"


async def test_a_sub_path_is_all_that_a_fork_sees(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    below = versions.make({"in/a": b"one", "out": b"hidden"}, sub_path="in")

    seen = await forge.run(template, LIST + "; open('/data/b', 'w')", volumes=[below])

    assert seen.stdout == "['a'] one\n"
    assert versions.written(1) == ["in", "in/b"]


async def test_a_version_of_a_fork_is_swapped_unless_it_is_in_use(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    holds = "f = open('/data/a')" + PAUSE.replace("import", "; import", 1)
    running = await forge.clone(template, PAUSE, volumes=[versions.make({"a": b"one"})])
    holding = await forge.clone(template, holds, volumes=[versions.make({"a": b"one"})])
    for one in (running, holding):
        await one.stdout.read_until("up")

    for data in (b"two", b"three"):
        await forge.runtime.freeze(running.container_id)
        await forge.runtime.swap_volume(running.container_id, versions.make({"a": data}))
        await forge.runtime.thaw(running.container_id)
        seen = await forge.containers.exec(running, "sh", "-c", "cat /data/a; ls /data")
        assert seen.stdout == data.decode() + "a\n"

    await forge.runtime.freeze(holding.container_id)
    with pytest.raises(VolumeBusy):
        await forge.runtime.swap_volume(holding.container_id, versions.make({"a": b"two"}))
    await forge.runtime.thaw(holding.container_id)
    assert (await forge.containers.exec(holding, "cat", "/data/a")).stdout == "one"


async def test_a_fork_is_not_begun_with_other_volumes_than_it_was_prepared_for(
    forge: Forge, versions: Versions
) -> None:
    template = await forge.ready()
    volume = versions.make({"a": b"one"})
    spec = forge.spec(template, LIST, volumes=[volume])
    await forge.runtime.prepare(spec, is_parked=True)

    for others in ([], [versions.make({"a": b"one"}, "1")], [volume, versions.make({"a": b"one"}, "1")]):
        with pytest.raises(RuntimeFailure, match="prepared for other volumes"):
            await forge.runtime.begin(spec.container_id, spec.env, others)

    started = await forge.runtime.begin(spec.container_id, spec.env, [volume])
    assert (await forge.containers.finish(Running(spec.container_id, started))).stdout == "['a'] one\n"


async def test_many_that_begin_at_once_have_each_its_own(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    volumes = [versions.make({"a": str(number).encode()}) for number in range(12)]
    specs = [forge.spec(template, LIST, volumes=[volume]) for volume in volumes]
    for spec in specs:
        await forge.runtime.prepare(spec, is_parked=True)

    begun = await asyncio.gather(*(forge.runtime.begin(spec.container_id, spec.env, spec.volumes) for spec in specs))

    ended = [
        await forge.containers.finish(Running(spec.container_id, one)) for spec, one in zip(specs, begun, strict=True)
    ]
    assert [one.stdout for one in ended] == [f"['a'] {number}\n" for number in range(12)]


async def test_nothing_is_left_of_a_fork_whose_volume_cannot_be_mounted(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    missing = versions.make({"a": b"one"}, sub_path="b", writable="")
    spec = forge.spec(template, LIST, volumes=[missing])
    await forge.runtime.prepare(spec, is_parked=True)

    with pytest.raises(RuntimeFailure, match="it has no directory 'b'"):
        await forge.runtime.begin(spec.container_id, spec.env, [missing])

    assert not await exists(forge.containers, spec.container_id)
    again = await forge.run(template, LIST, volumes=[versions.make({"a": b"one"})], container_id="ct-again")
    assert again.stdout == "['a'] one\n"


async def test_a_fork_that_is_removed_while_it_is_given_its_volumes_is_gone(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    for _ in range(5):
        volume = versions.make({"a": b"one"})
        spec = forge.spec(template, PAUSE, volumes=[volume], container_id="ct-same")
        await forge.runtime.prepare(spec, is_parked=True)

        begun = asyncio.ensure_future(forge.runtime.begin(spec.container_id, spec.env, [volume]))
        await asyncio.sleep(0)
        await forge.runtime.remove(spec.container_id)

        with contextlib.suppress(RuntimeFailure):
            await begun  # whichever came first
        assert not await exists(forge.containers, spec.container_id)
        Path(spec.state_dir).rename(f"{spec.state_dir}-{versions.make({}).image.rpartition('/')[2]}")


async def test_a_fork_goes_on_with_what_its_template_has_mapped(forge: Forge, versions: Versions) -> None:
    # The descriptor that goes with it is closed in the fork, as all are.
    maps = "import builtins, mmap; f = open('/data/a'); builtins.m = mmap.mmap(f.fileno(), 0, prot=1, flags=2)"
    template = await forge.ready("--before", maps, volumes=[versions.make({"a": b"one"})])
    late = "import sys; print('up', flush=True); sys.stdin = open('/go'); sys.stdin.read(); print(m[:])"

    clone = await forge.clone(template, f"import os; os.mkfifo('/go'); {LIST}; {late}", volumes=[
        versions.make({"a": b"two", "b": b""})
    ])  # fmt: skip
    await clone.stdout.read_until("up")
    await forge.runtime.kill(template.container_id, 15)
    await forge.containers.exec(clone, "sh", "-c", "true > /go")

    assert (await clone.stdout.read_all()) == "['a', 'b'] two\nup\nb'one'\n"


async def test_whoever_has_every_power_over_its_cell_changes_nothing_of_a_volume_but_what_it_sees(
    forge: Forge, versions: Versions
) -> None:
    template = await forge.ready()
    only_read = versions.make({"a": b"one"}, writable="")
    clone = await forge.clone(template, PAUSE, volumes=[only_read])
    await clone.stdout.read_until("up")
    attacks = (
        "mount -o remount,bind,rw /data", "mount -o remount,rw /data", "mount --make-shared /data", "touch /data/new",
        "mount --bind /data /mnt && mount -o remount,bind,rw /mnt && touch /mnt/new",
        "umount -l /data && touch /data/.squall/x /data/new", "umount -l /data && umount -l /data && touch /data/new",
    )  # fmt: skip
    namespaces = ("--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup")
    entered = ("nsenter", f"--target={clone.pid}", *namespaces, "--setuid=0", "--setgid=0")

    outcomes = {}
    for attack in attacks:
        done = await asyncio.to_thread(
            subprocess.run, (*entered, "sh", "-c", attack), env=ENV, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        outcomes[attack] = (done.returncode, done.stderr)

    worked = [attack for attack, (code, _) in outcomes.items() if code == 0]
    assert worked in ([], ["mount --make-shared /data"]), json.dumps(outcomes, indent=1)
    again = await forge.run(template, LIST, volumes=[versions.make({"a": b"one"})])
    assert again.stdout == "['a'] one\n"


async def test_forks_begin_though_what_mounts_their_volumes_was_killed(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    spawner = spawner_pid(template)
    for _ in range(3):
        spec = forge.spec(template, LIST, volumes=[volume := versions.make({"a": b"one"})])
        await forge.runtime.prepare(spec, is_parked=True)
        (mounter,) = [pid for pid in children_of(spawner) if is_of_the_machine(pid)]
        os.kill(mounter, signal.SIGKILL)
        # Who is given something to do in that moment does not do it, and its start goes another way.
        await until(functools.partial(is_reaped, mounter, spawner))

        started = await forge.runtime.begin(spec.container_id, spec.env, [volume])

        assert (await forge.containers.finish(Running(spec.container_id, started))).stdout == "['a'] one\n"


async def test_forks_go_with_their_volumes_though_what_lets_go_of_them_was_killed(
    forge: Forge, versions: Versions
) -> None:
    template = await forge.ready()
    spawner = spawner_pid(template)
    for _ in range(3):
        fork = await forge.clone(template, PAUSE, volumes=[versions.make({"a": b"one"})])
        (mounter,) = [pid for pid in children_of(spawner) if is_of_the_machine(pid)]
        os.kill(mounter, signal.SIGKILL)

        await forge.runtime.remove(fork.container_id)

        assert not await exists(forge.containers, fork.container_id)


async def test_what_mounts_volumes_keeps_nothing_open_of_the_spawners(forge: Forge, versions: Versions) -> None:
    template = await forge.ready()
    await forge.run(template, LIST, volumes=[versions.make({"a": b"one"})])
    (mounter,) = [pid for pid in children_of(spawner_pid(template)) if is_of_the_machine(pid)]

    held = {name: os.readlink(f"/proc/{mounter}/fd/{name}") for name in os.listdir(f"/proc/{mounter}/fd")}

    assert len([link for link in held.values() if link.startswith("socket:")]) == 1, held
    assert len(held) == 6, held
    assert os.stat(f"/proc/{mounter}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino


def is_reaped(pid: int, parent: int) -> bool:
    return pid not in children_of(parent)


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_of_the_machine(pid: int) -> bool:
    """It is in our own pid namespace."""
    return os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino
