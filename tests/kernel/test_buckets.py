"""Buckets of containers, on a real server that speaks S3: what is seen of them, written to them, and left of them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.agent.bucket import files_dir
from squall.agent.disk_use import deleted_use
from squall.runtime.bucket.program import LOOK_AGAIN_S, S3FS_PROGRAMS
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.client import SpawnerRuntime
from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.removal import mounts_below
from squall.runtime.spec import GVISOR, Bucket, ExitStatus
from squall.runtime.sweep import sweep
from tests.buckets import BUCKET, KEYS, URL, Store
from tests.kernel.containers import Containers, Running, shell, until
from tests.kernel.test_spawner import is_alive

pytestmark = pytest.mark.skipif(
    not any(map(os.path.exists, S3FS_PROGRAMS)), reason="missing program: s3fs (package s3fs, see make setup)"
)


PATIENCE_S = 300.0


# A shell would close what it has written to.
WRITES_ON = [
    "python3",
    "-c",
    "import os, time; os.write(os.open('/data/open', os.O_CREAT | os.O_WRONLY), bytes(30_000_000)); "
    "print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    try:
        yield made
    finally:
        made.close()


def bucket(**fields: Any) -> Bucket:
    given: dict[str, Any] = {"name": "0", "target": "/data", "bucket": BUCKET, "endpoint_url": URL, "env": KEYS}
    return Bucket(**{**given, **fields})


def server_pids() -> list[int]:
    """Of all programs of buckets of this machine, those of the tests' stores."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_server(pid)]


def _is_server(pid: int) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return argv[0].endswith(b"/s3fs") and f"url={URL}".encode() in argv


async def test_objects_are_files_and_files_become_objects(containers: Containers, store: Store) -> None:
    store.put("a", b"one")
    store.put("dir/b", b"two")
    script = shell(
        "cd /data; cat a dir/b; stat -c ' %u %g %s' a",
        "echo new > c; echo over > a; echo more >> a; mkdir made; echo deep > made/d; mv dir/b dir/e; rm c",
        "ls dir made",
        "cat a; printf X | dd of=a bs=1 seek=1 conv=notrunc 2>/dev/null",
    )

    ended = await containers.run(*script, buckets=[bucket()], network=store.slot)

    assert (ended.stdout, ended.stderr) == ("onetwo 0 0 3\ndir:\ne\n\nmade:\nd\nover\nmore\n", "")
    assert store.keys() == ["a", "dir/e", "made/d"]
    assert (store.get("a"), store.get("dir/e"), store.get("made/d")) == (b"oXer\nmore\n", b"two", b"deep\n")


async def test_what_was_closed_is_there_when_close_has_returned(containers: Containers, store: Store) -> None:
    running = await containers.start(
        *shell("echo one > /data/a; echo closed; read wait"), buckets=[bucket()], network=store.slot
    )

    await running.stdout.read_until("closed")

    assert running.phase_ms["buckets"] > 0
    assert store.get("a") == b"one\n"


async def test_files_are_those_of_the_container_s_user(containers: Containers, store: Store) -> None:
    store.put("a", b"one")
    script = shell("id -u; cat /data/a; echo two > /data/b; chmod 600 /data/b; stat -c '%u %g %a' /data/a /data/b")

    ended = await containers.run(*script, buckets=[bucket()], network=store.slot, user=(1_000, 1_000))

    assert (ended.stdout, ended.stderr) == ("1000\none1000 1000 640\n1000 1000 600\n", "")


async def test_below_a_prefix_nothing_else_is_seen_or_written(containers: Containers, store: Store) -> None:
    store.put("in/a", b"one")
    store.put("inside", b"other")
    store.put("out", b"other")
    script = shell("cd /data; ls -A; ls ..//data/../data; echo two > b; cat ../out; cat /data/../out; ls -A in")

    ended = await containers.run(*script, buckets=[bucket(key_prefix="in/")], network=store.slot)

    assert ended.stdout == "a\na\n"
    assert ended.stderr.count("No such file or directory") == 3
    assert store.keys() == ["in/a", "in/b", "inside", "out"]


async def test_a_prefix_without_keys_is_an_empty_directory(containers: Containers, store: Store) -> None:
    script = shell("ls -A /data; echo one > /data/a")

    ended = await containers.run(*script, buckets=[bucket(key_prefix="new/place/")], network=store.slot)

    assert (ended.stdout, ended.stderr, store.keys()) == ("", "", ["new/place/a"])


async def test_what_is_read_only_takes_no_write(containers: Containers, store: Store) -> None:
    store.put("a", b"one")
    script = shell("cd /data; cat a; echo x > a; echo x > b; rm a; mkdir d; mount -o remount,rw /data")

    ended = await containers.run(*script, buckets=[bucket(is_read_only=True)], network=store.slot)

    assert ended.stdout == "one"
    assert ended.stderr.count("Read-only file system") == 4, ended.stderr
    assert (store.keys(), store.get("a")) == (["a"], b"one")


async def test_two_buckets_of_a_container_and_buckets_of_two_are_apart(containers: Containers, store: Store) -> None:
    store.s3().create_bucket(Bucket="other")
    store.put("a", b"one")
    both = [bucket(), bucket(name="1", target="/else/where", bucket="other")]
    script = shell("echo two > /else/where/b; ls /data /else/where")

    ended = await containers.run(*script, buckets=both, network=store.slot)
    other = await containers.run("ls", "/data", buckets=[bucket(bucket="other")], network=store.slot)
    without = await containers.run("ls", "/data", network=store.slot)

    assert ended.stdout == "/data:\na\n\n/else/where:\nb\n"
    assert (other.stdout, without.stdout) == ("b\n", "")
    assert store.keys() == ["a"]


async def test_what_others_change_is_there_when_a_file_is_opened(containers: Containers, store: Store) -> None:
    store.put("a", b"one")
    running = await containers.start("sleep", "600", buckets=[bucket()], network=store.slot)

    for content in (b"one", b"two", b"longer than before", b"4"):
        store.put("a", content)
        assert (await containers.exec(running, "cat", "/data/a")).stdout == content.decode()
        assert (await containers.exec(running, "cat", "/data/a")).stdout == content.decode()


async def test_what_others_put_and_delete_is_in_lists_before_long(containers: Containers, store: Store) -> None:
    store.put("dir/a", b"one")
    store.put("dir/b", b"two")
    running = await containers.start("sleep", "600", buckets=[bucket()], network=store.slot)
    assert (await containers.exec(running, "ls", "/data/dir")).stdout == "a\nb\n"

    store.delete("dir/a")
    store.put("dir/c", b"three")

    async with asyncio.timeout(LOOK_AGAIN_S + 5):
        while (listed := (await containers.exec(running, "ls", "/data/dir")).stdout) != "b\nc\n":
            assert set(listed.split()) <= {"a", "b", "c"}


async def test_of_two_that_write_a_file_the_last_that_closes_it_has_it(containers: Containers, store: Store) -> None:
    store.put("a", b"before")
    first = await containers.start(*_writer("first"), buckets=[bucket()], network=store.slot)
    second = await containers.start(*_writer("second, and longer"), buckets=[bucket()], network=store.slot)
    for running in (first, second):
        await running.stdout.read_until("opened")

    for running, content in ((second, b"second, and longer"), (first, b"first")):
        await containers.exec(running, "touch", "/tmp/go-on")
        await running.stdout.read_until("closed")
        assert store.get("a") == content


def _writer(text: str) -> list[str]:
    """Opens a file of the bucket and writes, and closes it when it is told. A shell would close it at once."""
    script = f"""
import os, time
fd = os.open("/data/a", os.O_WRONLY | os.O_TRUNC)
os.write(fd, {text.encode()!r})
print("opened", flush=True)
while not os.path.exists("/tmp/go-on"):
    time.sleep(0.02)
os.close(fd)
print("closed", flush=True)
time.sleep(600)
"""
    return ["python3", "-c", script]


async def test_links_and_odd_keys_lead_nowhere_else(containers: Containers, store: Store) -> None:
    made = {"x-amz-meta-mode": str(0o120777)}
    store.put("link", b"/etc/shadow", Metadata={"mode": made["x-amz-meta-mode"]})
    store.put("suid", b"#!/bin/sh", Metadata={"mode": str(0o104755)})
    store.put("device", b"", Metadata={"mode": str(0o020666)})
    store.put("owned", b"x", Metadata={"uid": "4000000000", "gid": "4000000000"})
    store.put("../up", b"other")
    store.put("-rf", b"x")
    store.put("snowman-\N{SNOWMAN}", b"x")
    script = shell(
        "cd /data; ls -A >/dev/null; cat owned; readlink link; head -c 1 device; cat ./-rf snowman-*; cat link"
    )

    ended = await containers.run(*script, buckets=[bucket()], network=store.slot)

    shadow = (Path(containers.rootfs) / "etc/shadow").read_text()
    assert ended.stdout == f"x/etc/shadow\nxx{shadow}", (ended.stdout, ended.stderr)


async def test_wrong_keys_are_told_with_the_bucket_and_the_cause(containers: Containers, store: Store) -> None:
    store.enforce()
    wrong = {**KEYS, "AWS_ACCESS_KEY_ID": "nobody"}

    with pytest.raises(RuntimeFailure) as raised:
        await containers.start("true", buckets=[bucket(env=wrong)], network=store.slot)

    message = "cannot start container ct-1: cannot mount bucket the-bucket at /data: InvalidAccessKeyId: "
    assert raised.value.message.startswith(message), raised.value.message
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in raised.value.message
    assert not server_pids()


async def test_right_keys_are_let_in(containers: Containers, store: Store) -> None:
    keys = store.enforce()
    script = shell("echo one > /data/a; env")

    ended = await containers.run(*script, buckets=[bucket(env=keys)], network=store.slot)

    assert ended.stderr == ""
    assert store.get("a") == b"one\n"
    assert keys["AWS_SECRET_ACCESS_KEY"] not in ended.stdout
    assert keys["AWS_ACCESS_KEY_ID"] not in ended.stdout


async def test_a_bucket_that_is_not_there_is_told(containers: Containers, store: Store) -> None:
    with pytest.raises(RuntimeFailure, match="bucket nowhere, below a/ at /data: NoSuchBucket: The specified bucket"):
        await containers.start("true", buckets=[bucket(bucket="nowhere", key_prefix="a/")], network=store.slot)


async def test_a_store_that_is_not_there_is_told(containers: Containers, store: Store) -> None:
    dead = bucket(endpoint_url="http://127.0.0.1:1")

    with pytest.raises(RuntimeFailure, match=r"bucket the-bucket at /data: unable to connect\(host=http://127.0.0.1:1"):
        await containers.start("true", buckets=[bucket(name="1", target="/other"), dead], network=store.slot)

    assert not server_pids()


async def test_under_gvisor_it_is_refused(containers: Containers, store: Store) -> None:
    with pytest.raises(FeatureMissing, match="under gVisor"):
        await containers.start("true", buckets=[bucket()], network=store.slot, isolation=GVISOR)


async def test_its_program_may_do_nothing_but_serve(containers: Containers, store: Store) -> None:
    running = await containers.start("sleep", "60", buckets=[bucket()], network=store.slot)

    (pid,) = server_pids()
    status = Path(f"/proc/{pid}/status").read_text()
    assert set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE)) == {"0" * 16}
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    for name in ("net", "user"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/{running.pid}/ns/{name}")
    for name in ("mnt", "pid", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/{running.pid}/ns/{name}")
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    top = f"/proc/{pid}/root"
    assert sorted(os.listdir(f"{top}/etc"))[:1] != []
    assert not os.path.exists(f"{top}/etc/shadow")
    assert not os.path.exists(f"{top}/root")
    assert len([name for name in os.listdir(f"{top}/proc") if name.isdigit()]) == 2
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in Path(f"/proc/{pid}/cmdline").read_text()
    descriptors = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    assert {one.partition(":")[0] for one in descriptors} <= {"pipe", "/fuse", "/dev/null", "socket"}, descriptors


async def test_a_container_sees_nothing_of_the_program(containers: Containers, store: Store) -> None:
    planted = KEYS["AWS_SECRET_ACCESS_KEY"]
    script = shell(
        "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; cat /proc/mounts; ls /proc | grep -c '^[0-9]'",
        "grep -r planted-key-of-a /run /tmp /etc /data 2>/dev/null; umount /data; ls /sys/fs/fuse/connections 2>&1",
    )

    ended = await containers.run(*script, buckets=[bucket()], network=store.slot)

    assert planted not in ended.stdout + ended.stderr
    assert "not permitted" in ended.stderr or "must be superuser" in ended.stderr


async def test_the_key_is_in_no_file(containers: Containers, store: Store, data_dir: Path) -> None:
    running = await containers.start(
        *shell("echo one > /data/a; echo ready; sleep 60"), buckets=[bucket()], network=store.slot
    )
    await running.stdout.read_until("ready")

    for top in (data_dir, containers.base):
        for path in top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in path.read_bytes(), path


async def test_nothing_is_left_of_one_that_has_ended(containers: Containers, store: Store) -> None:
    running = await containers.start("true", buckets=[bucket()], network=store.slot)
    await containers.exit(running)

    await containers.runtime.remove(running.container_id)

    assert not server_pids()
    assert not [name for name in detect_cgroups().names(f"squall/{containers.base.name}") if "bucket" in name]
    assert [
        path.name for path in (containers.base / running.container_id / "buckets").rglob("*") if path.is_file()
    ] == []


async def test_one_that_was_killed_has_sent_what_it_had_open(containers: Containers, store: Store) -> None:
    running = await containers.start(*WRITES_ON, buckets=[bucket()], network=store.slot)
    await running.stdout.read_until("ready")

    await containers.runtime.kill(running.container_id, signal.SIGKILL)
    await containers.exit(running)

    assert store.keys() == ["open"]
    assert len(store.get("open")) == 30_000_000


@pytest.mark.slow
async def test_one_that_is_killed_while_its_store_is_silent_ends_in_bounded_time(
    containers: Containers, store: Store
) -> None:
    running = await containers.start(*WRITES_ON, buckets=[bucket()], network=store.slot)
    await running.stdout.read_until("ready")
    store.stall()

    await containers.runtime.kill(running.container_id, signal.SIGKILL)
    ended = await _patiently(containers, running)

    assert ended.signal == signal.SIGKILL
    assert "not all that was written is there" in running.stderr.text
    await containers.runtime.remove(running.container_id)
    assert not server_pids()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["gone", pytest.param("silent", marks=pytest.mark.timeout(400))])
async def test_a_store_that_does_not_answer_any_more_is_an_error_in_bounded_time(
    containers: Containers, store: Store, what: str
) -> None:
    store.put("a", b"one")
    running = await containers.start(
        *shell("mkfifo /tmp/go; echo ready; read go < /tmp/go; cat /data/a; echo said $?"),
        buckets=[bucket(silent_s=3)],
        network=store.slot,
    )
    await running.stdout.read_until("ready")
    store.stall() if what == "silent" else store.process.kill()

    await containers.exec(running, "sh", "-c", "echo > /tmp/go")
    await _patiently(containers, running)

    assert "said 1" in running.stdout.text
    assert "Input/output error" in running.stderr.text


async def test_a_program_that_is_killed_leaves_an_error_and_a_word(containers: Containers, store: Store) -> None:
    store.put("a", b"one")
    running = await containers.start(
        *shell("mkfifo /tmp/go; echo ready; read go < /tmp/go; cat /data/a; echo said $?"),
        buckets=[bucket()],
        network=store.slot,
    )
    await running.stdout.read_until("ready")

    for pid in server_pids():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not server_pids())
    await running.stderr.read_until("cannot be reached any more")
    await containers.exec(running, "sh", "-c", "echo > /tmp/go")
    ended = await containers.finish(running)

    assert "said 1" in ended.stdout
    assert "Transport endpoint is not connected" in ended.stderr


async def test_one_that_is_removed_while_its_store_is_silent_was_never_there(
    containers: Containers, store: Store
) -> None:
    store.stall()
    spec = containers.spec("true", buckets=[bucket()], network=store.slot)
    starting = asyncio.ensure_future(containers.runtime.start(spec))
    await until(lambda: bool(server_pids()))

    await containers.runtime.remove(spec.container_id)

    with pytest.raises(RuntimeFailure):
        await starting
    assert not server_pids()
    assert not [name for name in detect_cgroups().names(f"squall/{containers.base.name}") if "bucket" in name]


async def test_what_is_being_written_is_found_on_the_disk(containers: Containers, store: Store) -> None:
    script = shell("head -c 50000000 /dev/zero > /data/small; head -c 50000000 /dev/urandom >&3; echo ready; sleep 60")
    running = await containers.start(
        *shell(f"exec 3> /data/large; {script[2]}"), buckets=[bucket()], network=store.slot
    )
    await running.stdout.read_until("ready")

    (pid,) = running.bucket_pids
    files = files_dir(containers.base / running.container_id, 0)

    adopted = await containers.runtime.adopt(running.container_id)
    os.close(adopted.stdout_fd)
    os.close(adopted.stderr_fd)
    assert adopted.bucket_pids == running.bucket_pids
    assert 40_000_000 < deleted_use(pid, [files]).space_bytes < 90_000_000
    assert not os.listdir(files)
    # While the store is there that it is sent to.
    await containers.runtime.remove(running.container_id)


async def test_killed_spawner_takes_the_programs_along_and_a_sweep_leaves_nothing(
    data_dir: Path, rootfs: str, store: Store
) -> None:
    runtime = await SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5)
    containers = Containers(runtime, data_dir, rootfs)
    running = await containers.start(*shell("echo ready; sleep 1000"), buckets=[bucket()], network=store.slot)
    await running.stdout.read_until("ready")

    os.kill(runtime.spawner_pid, signal.SIGKILL)
    await until(lambda: not server_pids() and not is_alive(running.pid) and not is_alive(runtime.spawner_pid))
    found = sweep(str(data_dir / "spawner"), data_dir.name)

    assert found == ["ct-1"]
    assert detect_cgroups().names(f"squall/{data_dir.name}") == []
    assert mounts_below(str(data_dir)) == []
    running.close()
    await runtime.close()


async def test_a_frozen_container_s_program_goes_on(containers: Containers, store: Store) -> None:
    running = await containers.start(
        *shell("while :; do echo x > /data/a; done"), buckets=[bucket()], network=store.slot
    )

    for _ in range(5):
        await containers.runtime.freeze(running.container_id)
        await containers.runtime.thaw(running.container_id)

    await containers.runtime.kill(running.container_id, signal.SIGKILL)
    await containers.exit(running)


async def test_without_s3fs_it_is_told_what_to_install(
    containers: Containers, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from squall.runtime.bucket import program

    monkeypatch.setattr(program, "S3FS_PROGRAMS", ())
    with pytest.raises(FeatureMissing, match="install the package s3fs"):
        program.find_s3fs()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_ten_thousand_keys_are_listed(containers: Containers, store: Store) -> None:
    store.fill(10_000)
    running = await containers.start(*shell("ls /data/many | wc -l"), buckets=[bucket()], network=store.slot)

    await _patiently(containers, running)

    assert (running.stdout.text, running.stderr.text) == ("10000\n", "")


@pytest.mark.slow
async def test_a_large_file_goes_and_comes_whole(containers: Containers, store: Store) -> None:
    script = shell(
        "head -c 300000000 /dev/urandom > /tmp/large; cp /tmp/large /data/large",
        "cmp /tmp/large /data/large && echo same",
    )

    ended = await containers.run(*script, buckets=[bucket()], network=store.slot)

    assert (ended.stdout, ended.stderr) == ("same\n", "")


async def _patiently(containers: Containers, running: Running) -> ExitStatus:
    """Its end, which may take as long as a store may be silent."""
    await asyncio.gather(running.stdout.read_all(PATIENCE_S), running.stderr.read_all(PATIENCE_S))
    return await containers.exit(running)
