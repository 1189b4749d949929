"""Reading and writing the small files of a cgroup directory, and removing it, with the errors in our words."""

from __future__ import annotations

import errno
import os
import time

from squall.runtime.errors import RuntimeFailure, describe_errno

ANCESTRY_ATTEMPTS = 20
POLL_FIRST_S = 0.001
POLL_MAX_S = 0.02


def read_text(path: str) -> str | None:
    """The content of a control file, or None where this kernel or cgroup has no such file."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError as error:
        # ENODEV: the cgroup was removed between open and read.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise RuntimeFailure(describe_errno("read", path, error.errno or 0)) from error


def read_int(path: str) -> int:
    """The single number in a control file; 0 where the file is missing or says something else (`max`)."""
    text = (read_text(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else 0


def read_fields(path: str) -> dict[str, int]:
    """A flat keyed file (`name number` a line) as a mapping; empty where the file is missing."""
    pairs = (line.split() for line in (read_text(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def read_pids(path: str) -> list[int]:
    """The process ids in a `cgroup.procs` file; ids of other pid namespaces (0) are left out."""
    return [int(word) for word in (read_text(path) or "").split() if word != "0"]


def write_text(path: str, value: str) -> None:
    """Write one value in one write, as control files want it.

    Raises:
        RuntimeFailure: with the file and the kernel's reason.
    """
    try:
        # No O_CREAT: a control file that is missing is a missing feature, never a file to make.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFailure(describe_errno("open", path, error.errno or 0)) from error
    try:
        os.write(descriptor, value.encode("ascii"))
    except OSError as error:
        raise RuntimeFailure(describe_errno(f"write {value!r} to", path, error.errno or 0)) from error
    finally:
        os.close(descriptor)


def add_pid(path: str, pid: int) -> None:
    """Move a process in; one that has ended already is no error."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(pid))
    except OSError as error:
        if error.errno != errno.ESRCH:
            raise RuntimeFailure(describe_errno(f"move process {pid} into", path, error.errno or 0)) from error


def make_directory(base: str, name: str) -> str:
    """Make `base/name` with its parents. The last part must not exist, the others may.

    Raises:
        RuntimeFailure: it exists, or the kernel refused.
    """
    path = f"{base}/{name}"
    for attempt in range(ANCESTRY_ATTEMPTS):
        try:
            _make_parents(os.path.dirname(path))
            os.mkdir(path)
            return path
        except FileNotFoundError as error:
            # The emptied parent was removed beside us between the two calls.
            if attempt == ANCESTRY_ATTEMPTS - 1:
                raise RuntimeFailure(describe_errno("make cgroup", path, error.errno or 0)) from error
        except OSError as error:
            raise RuntimeFailure(describe_errno("make cgroup", path, error.errno or 0)) from error
    raise AssertionError("the last attempt returns or raises")


def _make_parents(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError:
        # It was there, and was removed before makedirs looked what it is.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def child_names(path: str) -> list[str]:
    """Names of the cgroups directly below a directory, sorted; empty where it is missing."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove_directory(path: str, timeout_s: float) -> None:
    """Remove a cgroup with those below it, waiting for processes that are still on their way out. Idempotent.

    Raises:
        RuntimeFailure: still busy after `timeout_s`; names the processes that hold it.
    """
    try:
        # As a rule nothing is below it. And this takes no descriptor: who undoes something may have none left.
        os.rmdir(path)
        return
    except OSError:
        pass
    deadline = time.monotonic() + timeout_s
    for name in child_names(path):
        remove_directory(f"{path}/{name}", timeout_s)
    pause_s = POLL_FIRST_S
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise RuntimeFailure(describe_errno("remove cgroup", path, error.errno or 0)) from error
            if time.monotonic() >= deadline:
                pids = read_pids(f"{path}/cgroup.procs")
                raise RuntimeFailure(
                    f"cannot remove cgroup {path}: still busy after {timeout_s:g} s (processes {pids}); kill it first"
                ) from error
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, POLL_MAX_S)
