"""The stores of the suite; with a PostgreSQL of our own, unprivileged, on a unix socket only, gone at the end."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from squall.protocol.ids import new_id
from squall.server.model.store import Store
from squall.server.store.memory import MemoryStore
from squall.server.store.migration import upgrade
from squall.server.store.sql import SqlStore
from tests.conftest import remove_data_dir

# Nothing of it needs to survive the machine; the tests of durability are SQLite's.
SERVER_OPTIONS = "-c listen_addresses= -c fsync=off -c max_connections=20 -c shared_buffers=16MB"


def postgres_bin() -> Path | None:
    """The newest PostgreSQL that Debian installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def unprivileged_user() -> pwd.struct_passwd:
    """Who runs it: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("needs a user postgres or nobody to run PostgreSQL as")


def run_as(user: pwd.struct_passwd, *argv: str) -> None:
    """Run a command as that user, with nothing of ours but its PATH and locale."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("SQUALL_")}
    is_root = os.geteuid() == 0
    done = subprocess.run(
        argv,
        env=environment,
        cwd="/",
        user=user.pw_uid if is_root else None,
        group=user.pw_gid if is_root else None,
        extra_groups=[] if is_root else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{argv[0]} failed: {done.stderr}"


@pytest.fixture(scope="session")
def postgres_socket_dir() -> Iterator[Path]:
    """The directory with the socket of a running server, of user `squall`, with trust."""
    binaries = postgres_bin()
    if binaries is None:
        missing = "needs PostgreSQL: install the Debian package postgresql"
        if os.environ.get("SQUALL_TESTS_COMPLETE"):
            pytest.fail(f"{missing}; scripts/setup --tests should have")
        pytest.skip(missing)
    user = unprivileged_user()
    root = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    os.chown(root, user.pw_uid, user.pw_gid)
    data = str(root / "data")
    try:
        run_as(user, str(binaries / "initdb"), "-D", data, "-U", "squall", "-A", "trust", "-E", "UTF8", "--no-sync")
        control = (str(binaries / "pg_ctl"), "-D", data, "-w", "-t", "30", "-s")
        run_as(
            user, *control, "-o", f"{SERVER_OPTIONS} -c unix_socket_directories={root}", "-l", data + "/log", "start"
        )
        try:
            yield root
        finally:
            run_as(user, *control, "-m", "immediate", "stop")
    finally:
        remove_data_dir(root)


POSTGRES = pytest.param("postgres", marks=pytest.mark.long)


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
async def store(request: pytest.FixtureRequest, make_data_dir: Callable[[], Path]) -> AsyncIterator[Store]:
    """An empty store."""
    if request.param == "memory":
        yield MemoryStore()
        return
    if request.param == "sqlite":
        url = f"sqlite:///{make_data_dir()}/squall.db"
    else:
        url = new_postgres_database(request.getfixturevalue("postgres_socket_dir"))
    async with SqlStore(url, upgrade) as opened:
        yield opened


def new_postgres_database(socket_dir: Path) -> str:
    """The URL of what is an empty database to its user: a schema of one, which is made in no time."""
    name = "t" + new_id("ap")[3:].lower()
    url = f"postgresql+psycopg://squall@/postgres?host={socket_dir}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE SCHEMA "{name}"'))
    engine.dispose()
    return f"{url}&options=-csearch_path%3D{name}"
