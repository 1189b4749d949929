"""What is in the tree of an image: made ready to be a base, and said in the facts of its layer."""

from __future__ import annotations

import collections
import json
import os
import re
from pathlib import Path

from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.tool import WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci.image_directory import PYTHON_LABEL, BadImage, OciImage
from squall.agent.image.oci.tree import Tree, names_of

_VERSION_TIMEOUT_S = 20.0
_RUNTIME_FILES = ("resolv.conf", "hosts", "hostname")
_FILE_BYTES_MAX = 65_536


def finish(found: OciImage, root: Path, output: Output, *, needs_python: bool) -> dict[str, str]:
    """Make the tree ready to be a base, and say what is in it. `pull.pull_image` says which facts there are.

    Raises:
        BadImage: it has no Python and needs one, or what should be one is none.
        UnsafePath: it names a directory that it may not.
    """
    tree = Tree(str(root))
    try:
        python_path = _find_python(tree, found)
        if not python_path and needs_python:
            raise BadImage("it has no python3 on its PATH")
        if found.workdir:
            tree.directory(names_of(found.workdir), is_made=True)
        # Files of these names are mounted over in every container: with empty ones here nothing is created then.
        etc = tree.directory(("etc",), is_made=True)
        for name in _RUNTIME_FILES:
            tree.remove(etc, name)
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=etc))
        suite = _suite(tree)
    finally:
        tree.close()
    facts = {
        "suite": suite,
        "workdir": found.workdir,
        "user": found.user,
        "digest": found.digest,
        "env": _json(dict(found.env)),
        "labels": _json(dict(found.labels)),
        "entrypoint": _json(found.entrypoint),
        "cmd": _json(found.cmd),
        "shell": _json(found.shell),
        **_python(root, python_path, output, needs_python=needs_python),
    }
    return {name: value for name, value in facts.items() if value}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True) if value else ""


def _python(root: Path, python_path: str, output: Output, *, needs_python: bool) -> dict[str, str]:
    if not python_path:
        return {}
    try:
        return {"python_path": python_path, "python_version": _python_version(root, python_path, output)}
    except (BadImage, ToolFailed):
        if needs_python or output.is_cancelled():
            raise
        # Something else of that name: whoever wants to run functions in it will be told that there is no Python.
        return {}


def _python_version(root: Path, python_path: str, output: Output) -> str:
    namespaces = ("--mount", "--propagation=private", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
    program = own_program("squall.agent.image.bases.interpreter", str(root), python_path)
    lines: collections.deque[str] = collections.deque(maxlen=10)
    run_tool(
        (*WITH_PARENT, "unshare", *namespaces, *program),
        own_environ(),
        Output(lines.append, output.is_cancelled),
        Watch(_VERSION_TIMEOUT_S),
    )
    said = lines[-1] if lines else ""
    if not re.fullmatch(r"3\.\d{1,3}\.\d{1,3}[a-z0-9+.]{0,20}", said):
        raise BadImage(f"its {python_path} is no Python 3: asked for its version, it says {said[:80]!r}")
    return said


def _find_python(tree: Tree, found: OciImage) -> str:
    """Where there is a Python, or an empty text."""
    directories = [*found.env.get("PATH", "").split(":"), "/usr/local/bin", "/usr/bin"]
    for candidate in (
        found.labels.get(PYTHON_LABEL, ""),
        *(f"{directory.rstrip('/')}/python3" for directory in directories),
    ):
        if not candidate.startswith("/"):
            continue
        try:
            descriptor = tree.open(candidate, os.O_PATH)
        except (OSError, ValueError):
            continue
        os.close(descriptor)
        return candidate
    return ""


def _suite(tree: Tree) -> str:
    """The suite as the tree's own release file has it, or an empty text."""
    try:
        descriptor = tree.open("etc/os-release", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(_FILE_BYTES_MAX).decode(errors="replace")
    found = re.search(r"^VERSION_CODENAME=[\"']?([a-z]+)", text, re.MULTILINE)
    return found[1] if found else ""
