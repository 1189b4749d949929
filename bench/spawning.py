"""How quickly durable calls are acknowledged: not a benchmark itself, the modules spawn_... are."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.figure import Absent, Context, Figure
from squall.runtime.removal import remove_tree

COUNT = 100_000


def measure(context: Context, way: str, database: str) -> Figure:
    """Spawn 100,000 inputs on a data directory of its own.

    Raises:
        Absent: the server does not start, or a result is missing.
    """
    own = replace(context, data_dir=context.data_dir / f"spawning-{database}")
    count = context.times(COUNT)
    with _database(database) as url:
        own = replace(own, more_env={**context.more_env, **({"SQUALL_DATABASE_URL": url} if url else {})})
        try:
            numbers = own.program("spawning.py", way, count)
        finally:
            own.squall("server", "stop")
    also = {"took_s": numbers["took_s"], "done_s": numbers["done_s"]}
    return Figure(numbers["inputs_per_s"], "inputs/s", f"{count:,} inputs, {way}, {database}", also)


@contextmanager
def _database(kind: str) -> Iterator[str]:
    """The URL of a database that commits to disk; empty for the server's own SQLite."""
    if kind == "sqlite":
        yield ""
        return
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    if not binaries or os.geteuid() != 0:
        raise Absent("needs root and PostgreSQL: install the Debian package postgresql")
    user = pwd.getpwnam("postgres")
    root = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    os.chown(root, user.pw_uid, user.pw_gid)
    data = str(root / "data")

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries[-1] / program), "-D", data, *arguments]
        done = subprocess.run(
            command, cwd="/", user=user.pw_uid, group=user.pw_gid, extra_groups=[], check=False, timeout=60,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise Absent(f"{program}: {(done.stderr.strip().splitlines() or ['failed'])[-1][:140]}")

    try:
        run("initdb", "-U", "squall", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={root}"
        run("pg_ctl", "-w", "-s", "-o", options, "-l", f"{data}/log", "start")
        try:
            yield f"postgresql+psycopg://squall@/postgres?host={root}"
        finally:
            run("pg_ctl", "-w", "-s", "-m", "fast", "stop")
    finally:
        remove_tree(str(root))
