"""`python -m squall.agent.image.bases.interpreter ROOT PYTHON`: ask the Python in a strange tree for its version.

It is a program of strangers, and there is no container yet. So it is started in the tree as its root, as a user who
owns nothing, with few resources, no way to more rights and nothing to write on. The caller starts this in namespaces of
its own, mounts among them: what is mounted here would stay otherwise.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Sequence

_NOBODY_ID = 1_999_999_999
"""Owner of nothing on any machine, and not the `nobody` that services share."""
_PR_SET_NO_NEW_PRIVS = 38
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_BIND = 0x1, 0x2, 0x4, 0x20, 0x1000
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIMITS = {
    resource.RLIMIT_AS: 1 * 2**30,
    resource.RLIMIT_CPU: 10,
    resource.RLIMIT_NPROC: 32,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_CORE: 0,
}
_ASK = "import platform; print(platform.python_version())"


def main(arguments: Sequence[str]) -> int:
    """Run it to its end and pass on how it ended."""
    root, python_path = arguments
    # Stays as it is: a change of user clears the signal that ends a process with its parent, and this one must get it.
    pid = os.fork()
    if pid == 0:
        try:
            _become(root, python_path)
        except OSError as error:
            os.write(2, f"cannot run {python_path}: {error.strerror}\n".encode())
        os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF


def _become(root: str, python_path: str) -> None:
    _mount_read_only(root)
    os.chroot(root)
    os.chdir("/")
    for limit, value in _LIMITS.items():
        resource.setrlimit(limit, (value, value))
    os.setgroups([])
    os.setresgid(_NOBODY_ID, _NOBODY_ID, _NOBODY_ID)
    os.setresuid(_NOBODY_ID, _NOBODY_ID, _NOBODY_ID)
    _succeeded(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    os.execve(python_path, [python_path, "-I", "-S", "-B", "-c", _ASK], {"LC_ALL": "C.UTF-8"})


def _mount_read_only(root: str) -> None:
    path = os.fsencode(root)
    _succeeded(_LIBC.mount(path, path, None, ctypes.c_ulong(_MS_BIND), None))
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _succeeded(_LIBC.mount(None, path, None, ctypes.c_ulong(flags), None))


def _succeeded(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
