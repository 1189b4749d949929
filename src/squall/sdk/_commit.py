"""Which commit of a repository a program is at, for the history of what was deployed."""

from __future__ import annotations

import os
import subprocess

from squall.protocol.deployment import Commit

GIT_S = 3.0
"""How long git may take, each time: a deploy does not wait for a repository on a slow disk."""


def find_commit(folder: str) -> Commit | None:
    """The commit that is checked out there; None outside repositories, before the first commit and without git."""
    sha = _git(folder, "rev-parse", "HEAD")
    if not sha:
        return None
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return Commit(sha, "" if branch == "HEAD" else branch[:200], is_dirty=bool(changes))


def _git(folder: str, *arguments: str) -> str | None:
    """What git says; None when it says no, or nothing in time."""
    # Taking no locks: another git may be at work there, and must not find ours.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        ended = subprocess.run(
            ["git", "-C", folder, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_S,
            env=environ,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return ended.stdout.decode(errors="replace").strip() if ended.returncode == 0 else None
