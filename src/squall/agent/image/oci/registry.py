"""Base root file systems from a registry: the official Python image, or another one an operator names.

skopeo fetches it, with the settings this machine has for registries: mirrors, credentials, certificates, proxies. No
registry is named here; a short name is skopeo's to complete. What comes is hashed and unpacked as something of
strangers (`image_directory.py`, `unpack.py`).
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
from pathlib import Path

from squall.agent.image.bases.python_image import image_for
from squall.agent.image.layer.store import Scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import PATH, WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci.image_directory import BadImage, OciImage, read_image
from squall.agent.image.oci.tree import Tree, UnsafePath, names_of

_POLICIES = ("/etc/containers/policy.json", "{home}/.config/containers/policy.json")
_PULL_TIMEOUT_S = 900.0
_STALL_S = 30.0
_LIST_TIMEOUT_S = 15.0
_UNPACK_TIMEOUT_S = 600.0
_VERSION_TIMEOUT_S = 20.0
_MISSING = re.compile(r"manifest unknown|name unknown|not found", re.IGNORECASE)
_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')
_RUNTIME_FILES = ("resolv.conf", "hosts", "hostname")
_FILE_BYTES_MAX = 65_536


class RegistryFailure(Exception):
    """A registry cannot serve an image that can be used; the message says why, in its own words where it has any.

    Attributes:
        is_silent: nobody answered in time; asking again soon is a waste of that time.
        is_missing: somebody answered that there is no such image.
    """

    def __init__(self, message: str, *, is_silent: bool = False, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_silent = is_silent
        self.is_missing = is_missing


def pull_base(
    name: str, settings: MachineSettings, scratch: Scratch, root: Path, output: Output, answer_s: float
) -> dict[str, str]:
    """Make a base of an image in the directory `root`, which does not exist yet; returns the facts of the layer.

    Args:
        answer_s: how long to wait until somebody answers at all.

    Raises:
        RegistryFailure: it cannot be had, or not be used. Something half-made may be in `scratch`.
    """
    _refuse_missing_tools()
    directory = scratch.path / "image"
    temporary = scratch.path / "pull"
    for path in (directory, temporary, root):
        path.mkdir(mode=0o755)
    argv = ("copy", "--format=oci", "--remove-signatures", "--dest-decompress", f"docker://{name}", f"dir:{directory}")
    watch = Watch(
        _PULL_TIMEOUT_S, first_line_s=answer_s, stall_s=_STALL_S, progress=lambda: _size(directory) + _size(temporary)
    )
    _skopeo(name, argv, settings, output, watch, {"TMPDIR": str(temporary)}, scratch.lock_fd)
    try:
        found = read_image(directory)
        _unpack(found, root, output, scratch)
        facts = _finish(found, root)
        facts["python_version"] = _python_version(root, facts["python_path"], output)
    except (BadImage, UnsafePath, ToolFailed, OSError) as error:
        raise RegistryFailure(f"the image {name} cannot be used: {error}") from error
    return {**facts, "image": name}


def ask(name: str, settings: MachineSettings, timeout_s: float) -> None:
    """Return when a registry has this image.

    Raises:
        RegistryFailure: it has not, or there is none.
    """
    _refuse_missing_tools()
    _skopeo(name, ("inspect", "--raw", f"docker://{name}"), settings, Output(), Watch(timeout_s))


def list_series(pattern: str, settings: MachineSettings, output: Output) -> tuple[str, ...]:
    """The series of Python a registry has images for, oldest first; nothing when it does not say."""
    repository, _, tag = pattern.rpartition(":")
    if "{series}" not in tag or "{" in repository or "/" in tag:
        return ()
    lines: list[str] = []
    try:
        _skopeo(
            repository,
            ("list-tags", f"docker://{repository}"),
            settings,
            Output(lines.append, output.is_cancelled),
            Watch(_LIST_TIMEOUT_S),
        )
        tags = set(json.loads("\n".join(lines))["Tags"])
    except (RegistryFailure, ValueError, KeyError, TypeError):
        return ()
    series = (f"3.{minor}" for minor in range(100))
    return tuple(one for one in series if image_for(pattern, one).rpartition(":")[2] in tags)


def _refuse_missing_tools() -> None:
    if not shutil.which("skopeo", path=PATH):
        raise RegistryFailure("skopeo is not installed (apt-get install skopeo)")


def _skopeo(
    name: str,
    arguments: tuple[str, ...],
    settings: MachineSettings,
    output: Output,
    watch: Watch,
    environ: dict[str, str] | None = None,
    *keep_fds: int,
) -> None:
    home = settings.registry_env.get("HOME", "/root")
    variables = {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "HOME": home,
        **({"SSL_CERT_FILE": settings.ca_bundle} if settings.ca_bundle else {}),
        **settings.proxies,
        **settings.registry_env,
        **(environ or {}),
    }
    # The policy says whose signatures are asked for. A machine without one, which is rare, asks for none.
    policy = () if any(os.path.exists(path.format(home=home)) for path in _POLICIES) else ("--insecure-policy",)
    # Its last word is in the error.
    shown = Output(lambda line: None if _FATAL.search(line) else output.on_line(line), output.is_cancelled)
    try:
        run_tool((*WITH_PARENT, "skopeo", *policy, *arguments), variables, shown, watch, keep_fds)
    except ToolFailed as failure:
        words = _words(failure)
        raise RegistryFailure(
            f"{name}: {words}", is_silent=failure.is_silent, is_missing=bool(_MISSING.search(words))
        ) from None


def _words(failure: ToolFailed) -> str:
    """What skopeo said last, without its frame."""
    if failure.reason:
        return failure.reason
    found = _FATAL.findall(failure.tail)
    try:
        return str(json.loads(found[-1])) if found else failure.tail or "skopeo failed without a word"
    except ValueError:
        return str(found[-1])


def _size(directory: Path) -> int:
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            # Temporary files come and go meanwhile.
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total


def _unpack(found: OciImage, root: Path, output: Output, scratch: Scratch) -> None:
    layers = [f"{path}={digest}" for path, digest in found.layers]
    command = (*WITH_PARENT, *own_program("squall.agent.image.oci.unpack", str(root), *layers))
    run_tool(command, own_environ(), output, Watch(_UNPACK_TIMEOUT_S), (scratch.lock_fd,))


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


def _finish(found: OciImage, root: Path) -> dict[str, str]:
    """Make the tree ready to be a base, and say what is in it."""
    tree = Tree(str(root))
    try:
        python_path = _find_python(tree, found.env.get("PATH", ""))
        if found.workdir:
            tree.directory(names_of(found.workdir), is_made=True)
        # Files of these names are mounted over in every container; with empty ones nothing needs to be created then.
        etc = tree.directory(("etc",), is_made=True)
        for name in _RUNTIME_FILES:
            tree.remove(etc, name)
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=etc))
        return {
            "python_path": python_path,
            "suite": _suite(tree),
            "env": json.dumps(dict(found.env), sort_keys=True),
            "workdir": found.workdir,
        }
    finally:
        tree.close()


def _find_python(tree: Tree, path: str) -> str:
    for directory in [*path.split(":"), "/usr/local/bin", "/usr/bin"]:
        candidate = f"{directory.rstrip('/')}/python3"
        if not directory.startswith("/"):
            continue
        try:
            descriptor = tree.open(candidate, os.O_PATH)
        except OSError:
            continue
        os.close(descriptor)
        return candidate
    raise BadImage("it has no python3 on its PATH")


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
