"""Templates that are saved by CRIU and come back in another container, as they were and confined as they were."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from squall.runtime.client import SpawnerRuntime
from squall.runtime.criu.checksums import checksums
from squall.runtime.criu.launch import SAVED
from squall.runtime.criu.tool import find_tool
from squall.runtime.errors import TemplateUnfit
from squall.runtime.procfs import read_children, read_file
from squall.runtime.spec import IdRange
from tests.kernel.containers import TIMEOUT_S, Running
from tests.kernel.forge import RANGE, Forge
from tests.kernel.test_template import ALL_NAMESPACES

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(find_tool() is None, reason="missing: CRIU (make criu)"),
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Where a template is saved."""
    directory = tmp_path / "saved"
    directory.mkdir(mode=0o700)
    return directory


async def bring_back(forge: Forge, saved: Path, **fields: object) -> Running:
    template = await forge.template(restore_from=str(saved), **fields)
    report = await forge.runtime.template_report(template.container_id)
    assert report.is_ready
    # As it says it then, not before.
    assert report.memory_bytes == 2000
    return template


async def test_saved_template_comes_back_and_is_forked(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "import decimal; decimal.loaded = bytes(20 << 20) + b'x'")
    await forge.runtime.save(first.container_id, str(saved))
    # It was a copy that was saved.
    assert (await forge.run(first, "import decimal; print(len(decimal.loaded))")).stdout == "20971521\n"
    await forge.runtime.remove(first.container_id)

    template = await bring_back(forge, saved)
    action = "import decimal, os; print(len(decimal.loaded), os.environ['MINE'])"
    runs = [await forge.run(template, action, env={"MINE": str(number)}) for number in range(3)]

    assert [ended.stdout for ended in runs] == [f"20971521 {number}\n" for number in range(3)]


async def test_template_that_came_back_is_confined_as_any(forge: Forge, saved: Path) -> None:
    first = await forge.ready()
    await forge.runtime.save(first.container_id, str(saved))

    template = await bring_back(forge, saved)

    def confinement(running: Running) -> list[str]:
        wanted = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Threads")
        lines = Path(f"/proc/{running.pid}/status").read_text().splitlines()
        return [line for line in lines if line.startswith(wanted)]

    def links(running: Running, names: tuple[str, ...]) -> list[str]:
        return [os.readlink(f"/proc/{running.pid}/{name}") for name in names]

    def cgroups(running: Running) -> str:
        return Path(f"/proc/{running.pid}/cgroup").read_text().replace(running.container_id, "X")

    assert confinement(template) == confinement(first)
    assert cgroups(template) == cgroups(first)
    same = ("ns/user", "exe", "cwd", "root")
    assert links(template, same) == links(first, same)
    own = tuple(f"ns/{name}" for name in ALL_NAMESPACES if name != "user")
    assert not set(links(template, own)) & set(links(first, own))
    held = {name: os.readlink(f"/proc/{template.pid}/fd/{name}") for name in os.listdir(f"/proc/{template.pid}/fd")}
    assert sorted(text.split(":")[0] for text in held.values()) == ["/dev/null", "pipe", "pipe", "socket"]


async def test_both_can_be_forked_side_by_side(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "import decimal; decimal.loaded = 1")
    await forge.runtime.save(first.container_id, str(saved))
    template = await bring_back(forge, saved)

    for running in (first, template, first, template):
        assert (await forge.run(running, "import decimal; print(decimal.loaded)")).stdout == "1\n"


async def test_files_that_it_has_written_come_back_with_it(forge: Forge, saved: Path) -> None:
    before = "import os; os.mkdir('/srv/x'); open('/srv/x/y', 'w').write('kept'); os.unlink('/etc/debian_version')"
    first = await forge.ready("--before", before)
    await forge.runtime.save(first.container_id, str(saved))
    await forge.runtime.remove(first.container_id)
    template = await bring_back(forge, saved)

    action = "import os; print(open('/srv/x/y').read(), os.path.exists('/etc/debian_version'))"
    for _ in range(2):
        assert (await forge.run(template, f"{action}; open('/srv/x/y', 'a').write('!')")).stdout == "kept False\n"
    assert (saved / "files" / "srv" / "x" / "y").read_text() == "kept"


async def test_template_of_other_ids_is_refused(forge: Forge, saved: Path) -> None:
    first = await forge.ready()
    await forge.runtime.save(first.container_id, str(saved))

    with pytest.raises(TemplateUnfit, match="saved for other ids"):
        await forge.template(restore_from=str(saved), id_range=IdRange(RANGE.start + 65_536))


async def test_what_it_writes_goes_where_its_new_container_writes(forge: Forge, saved: Path) -> None:
    first = await forge.ready()
    await forge.runtime.save(first.container_id, str(saved))
    await forge.runtime.remove(first.container_id)
    template = await bring_back(forge, saved)

    Path(f"/proc/{template.pid}/fd/1").write_text("said\n")

    assert await template.stdout.read_until("said") == "said\n"


async def test_program_in_the_image_is_never_run_by_the_machine(forge: Forge, saved: Path) -> None:
    # What a loader, a library or CRIU itself would read, and do, where it runs.
    evil = """
import os
os.makedirs("/etc/criu", exist_ok=True)
open("/etc/criu/default.conf", "w").write("action-script /tmp/evil.sh\\n")
open("/tmp/evil.sh", "w").write("#!/bin/sh\\nid >>/tmp/evil\\n")
os.chmod("/tmp/evil.sh", 0o755)
os.makedirs("/usr/lib/criu", exist_ok=True)
open("/usr/lib/criu/evil.so", "w").write("not a library")
# Whoever opens it waits for ever.
os.mkfifo("/tmp/evil.so")
open("/etc/ld.so.preload", "w").write("/tmp/evil.so\\n")
open("/run/criu.kdat", "wb").write(bytes(4096))
"""
    first = await forge.ready("--before", evil)
    async with asyncio.timeout(TIMEOUT_S):
        await forge.runtime.save(first.container_id, str(saved))

    log = (saved / "dump.log").read_text()
    assert not Path(f"/proc/{first.pid}/root/tmp/evil").exists()
    assert "evil" not in log
    # Uncovered again: its own files are there.
    assert Path(f"/proc/{first.pid}/root/etc/ld.so.preload").exists()
    assert (await forge.run(first, "print(1)")).status.code == 0


async def test_template_whose_image_has_no_place_to_cover_is_not_saved(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "import os; os.rename('/run', '/ran'); os.symlink('/ran', '/run')")

    with pytest.raises(TemplateUnfit, match="has no directory /run"):
        await forge.runtime.save(first.container_id, str(saved))
    assert (await forge.run(first, "print(1)")).stdout == "1\n"


async def test_template_that_makes_no_copy_is_not_saved(forge: Forge, saved: Path) -> None:
    first = await forge.ready(
        "--before", "import __main__; __main__.be_copied = lambda control, descriptor: os.close(descriptor)"
    )

    with pytest.raises(TemplateUnfit, match="no copy of itself"):
        await forge.runtime.save(first.container_id, str(saved))


async def test_what_cannot_be_saved_says_why_and_the_template_goes_on(forge: Forge, saved: Path) -> None:
    # A lock on a file is nothing that CRIU saves unasked.
    lock = "KEPT.add(os.open('/usr/lib/os-release', os.O_RDONLY)); fcntl.flock(min(KEPT), fcntl.LOCK_EX)"
    first = await forge.ready("--before", f"import fcntl; {lock}")

    with pytest.raises(TemplateUnfit, match=r"cannot dump a template by CRIU: .*lock"):
        await forge.runtime.save(first.container_id, str(saved))
    assert not (saved / SAVED).exists()
    assert (await forge.run(first, "print(1)")).stdout == "1\n"


@pytest.mark.parametrize("killed", ["who waits for a CRIU that hangs", "who has covered what CRIU is not to see"])
async def test_killed_on_the_way_a_save_leaves_the_template_as_it_was(forge: Forge, saved: Path, killed: str) -> None:
    first = await forge.ready("--before", "import decimal; decimal.loaded = bytes(300 << 20)")
    assert isinstance(forge.runtime, SpawnerRuntime)
    spawner = forge.runtime.spawner_pid
    mounts = Path(f"/proc/{first.pid}/mountinfo")
    before, children = mounts.read_text(), set(read_children(spawner))

    saving = asyncio.ensure_future(forge.runtime.save(first.container_id, str(saved)))
    saver, criu = await asyncio.to_thread(find_saver, spawner, children)
    os.kill(criu, signal.SIGSTOP)
    assert mounts.read_text() != before
    os.kill(saver if "waits" in killed else read_children(saver)[0], signal.SIGKILL)

    done, _ = await asyncio.wait([saving], timeout=10)
    assert done, "whoever asked for it is answered"
    assert isinstance(saving.exception(), TemplateUnfit)
    assert mounts.read_text() == before, "nothing is covered any more"
    assert not os.path.exists(f"/proc/{criu}"), "nothing is left of it, not even for its parent to wait for"
    again = saved / "again"
    again.mkdir(mode=0o700)
    await forge.runtime.save(first.container_id, str(again))
    assert (await forge.run(first, "print(1)")).stdout == "1\n"


def find_saver(spawner: int, others: set[int]) -> tuple[int, int]:
    """Whoever saves a template, and CRIU once it is executed."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError, ValueError):
            (saver,) = set(read_children(spawner)) - others
            criu = read_children(read_children(saver)[0])[0]
            if b"criu.bin" in read_file(f"/proc/{criu}/cmdline"):
                return saver, criu
        time.sleep(0.001)
    raise TimeoutError("nobody saves it")


def said_of(saved: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((saved / SAVED).read_text())
    return found


async def test_damaged_template_is_refused_and_leaves_nothing(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "open('/srv/kept', 'w').write('kept')")
    await forge.runtime.save(first.container_id, str(saved))
    await forge.runtime.remove(first.container_id)
    (pages,) = saved.glob("pages-*.img")
    kept = saved / "files" / "srv" / "kept"

    async def refused(match: str = "not as they were saved") -> None:
        with pytest.raises(TemplateUnfit, match=match):
            await forge.template(restore_from=str(saved))

    whole = pages.read_bytes()
    pages.write_bytes(whole[:4096])
    await refused()
    # Of the same size, as after a power loss.
    pages.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    await refused()
    pages.write_bytes(whole)
    kept.write_text("lost")
    await refused()
    kept.unlink()
    await refused()
    (saved / "core-3.img").write_bytes(bytes((saved / "core-3.img").stat().st_size))
    (saved / SAVED).write_text(json.dumps({**said_of(saved), "checksums": checksums(str(saved), "files")}))
    await refused(r"cannot restore a template by CRIU: .*core")
    for nonsense in ("", "[", "[" * 60_000, "[]", '{"first_id": 1}'):
        (saved / SAVED).write_text(nonsense)
        await refused("none was saved there whole|saved for other ids")
    (saved / SAVED).unlink()
    await refused("none was saved there whole")
    assert await forge.runtime.list() == []


async def test_template_that_comes_back_with_other_filters_is_refused(forge: Forge, saved: Path) -> None:
    first = await forge.ready()
    await forge.runtime.save(first.container_id, str(saved))
    said = said_of(saved)
    assert said["filters"] >= 1

    (saved / SAVED).write_text(json.dumps({**said, "filters": said["filters"] + 1}))
    with pytest.raises(TemplateUnfit, match="does not wear the filters of system calls"):
        await forge.template(restore_from=str(saved))


async def test_unknown_template_is_not_saved(forge: Forge, saved: Path) -> None:
    with pytest.raises(TemplateUnfit, match="cannot save template tp-none: it is not ready"):
        await forge.runtime.save("tp-none", str(saved))


async def test_large_template_comes_back_with_all_that_was_in_it(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "import decimal, os; decimal.loaded = os.urandom(1 << 20) * 300")
    action = "import decimal, zlib; print(len(decimal.loaded), zlib.crc32(decimal.loaded))"
    before = await forge.run(first, action)
    assert before.stdout.startswith(f"{300 << 20} ")
    await forge.runtime.save(first.container_id, str(saved))
    await forge.runtime.remove(first.container_id)

    template = await bring_back(forge, saved)

    assert (await forge.run(template, action)).stdout == before.stdout


async def test_copy_that_is_larger_than_what_is_kept_for_it_is_not_saved(forge: Forge, saved: Path) -> None:
    first = await forge.ready()

    with pytest.raises(TemplateUnfit, match="File too large"):
        await forge.runtime.save(first.container_id, str(saved), 2**20)

    assert max(one.stat().st_size for one in saved.rglob("*") if one.is_file()) <= 2**20
    assert (await forge.run(first, "print('goes on')")).stdout == "goes on\n"


async def test_files_that_it_has_written_may_be_larger_than_its_memory(forge: Forge, saved: Path) -> None:
    first = await forge.ready("--before", "with open('/srv/large', 'wb') as file: file.truncate(80 << 20)")

    saving = asyncio.ensure_future(forge.runtime.save(first.container_id, str(saved), 64 * 2**20))
    await asyncio.wait([saving])

    assert saving.exception() is None
    assert (saved / "files" / "srv" / "large").stat().st_size == 80 * 2**20
