"""Makes the layers that need no container: bases, images of registries and files, copied files, a Python of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from squall.agent.image.bases.debian import BaseUnavailable
from squall.agent.image.bases.ensure import ensure_base
from squall.agent.image.bases.standalone import MUSL_LOADERS, PYTHON_DIR, fetch_python
from squall.agent.image.layer.copy_files import CopyPlan
from squall.agent.image.layer.merged import merged
from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.layer.users import UnknownUser, find_user
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.machine.write_limit import WriteLimit, WroteTooMuch
from squall.agent.image.making import BuildFailed, Making
from squall.agent.image.oci.added_archive import add_archives
from squall.agent.image.oci.archive_file import NoImage
from squall.agent.image.oci.pull import import_archive, pull_image
from squall.agent.image.oci.refusal import UNREACHABLE, RegistryFailure
from squall.agent.image.oci.registry_secret import BadSecret, Login, credentials_of, login_of
from squall.agent.image.progress import BuiltImage
from squall.agent.image.step_container import LONGER
from squall.agent.image.unreached import REMEDY, unreached
from squall.protocol import image
from squall.protocol.errors import INVALID, TIMED_OUT, UNAVAILABLE, UNSUPPORTED
from squall.runtime.removal import remove_tree

T = TypeVar("T")


class OutsideMaker:
    """Makes layers in threads of the executor.

    Args:
        mount_path: the directory of a mount's files by its id.
        uv_path: the uv program, which fetches Pythons.
        bytes_max: what an image or an archive may become when it is decompressed, and again when it is unpacked.
        timeout_s: how long one layer may take once its thread has begun. None: for ever.
    """

    def __init__(
        self,
        store: LayerStore,
        settings: MachineSettings,
        executor: Executor,
        mount_path: Callable[[str], str],
        uv_path: str,
        bytes_max: int,
        timeout_s: float | None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._executor = executor
        self._mount_path = mount_path
        self._uv_path = uv_path
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s

    async def make_base(self, making: Making) -> Layer:
        """The layer of `debian_slim`.

        Raises:
            BuildFailed: it cannot be had.
        """

        def make(output: Output) -> Layer:
            return ensure_base(
                self._store,
                self._settings,
                making.step.python_version,
                output.on_line,
                key=making.key,
                is_forced=making.progress.is_forced,
                is_cancelled=output.is_cancelled,
            )

        try:
            return await self._watched(making, make)
        except BaseUnavailable as error:
            if absent := unreached(str(error)):
                raise BuildFailed(UNAVAILABLE, f"{absent}; {REMEDY}. {error}") from error
            raise BuildFailed(UNSUPPORTED, str(error)) from error

    async def pull(self, making: Making) -> Layer:
        """The layer of `from_registry`: the image's own layers laid over one another.

        Raises:
            BuildFailed: the registry does not serve it, or it cannot be used.
        """
        login = _login(making)

        def pull(output: Output) -> Layer:
            with self._store.scratch() as scratch:
                root = scratch.path / "fs"
                name = making.step.tag
                facts = pull_image(
                    name,
                    self._settings,
                    scratch,
                    root,
                    output,
                    credentials=credentials_of(login, name, self._settings, output) if login else None,
                    bytes_max=self._bytes_max,
                )
                return self._commit(making, scratch, root, facts)

        try:
            return await self._watched(making, pull)
        except RegistryFailure as error:
            if error.kind == UNREACHABLE:
                raise making.failure(UNAVAILABLE, f"failed: {error}", "", "then build again") from error
            raise making.failure(UNAVAILABLE, "failed", str(error), "see what the registry says") from error

    async def read_archive(self, making: Making) -> Layer:
        """The layer of `from_archive`: the same of an image that came as one file.

        Raises:
            BuildFailed: there is no image in it, or one that cannot be used.
        """
        archive = Path(self._mount_path(making.step.mount_id)) / image.ARCHIVE_PATH

        def read(output: Output) -> Layer:
            with self._store.scratch() as scratch:
                root = scratch.path / "fs"
                name = making.step.tag or "the archive"
                facts = import_archive(
                    archive, self._settings, scratch, root, output, name=name, bytes_max=self._bytes_max
                )
                return self._commit(making, scratch, root, facts)

        try:
            return await self._watched(making, read)
        except RegistryFailure as error:
            remedy = (
                "give a whole archive of one image for this machine, as `squall image export` or `docker save` has it"
            )
            raise making.failure(INVALID, "failed", str(error), remedy) from error

    async def lay_files(self, making: Making, other: BuiltImage | None) -> Layer:
        """The layer of copied files, or of a directory: an image may have no program that could do it.

        Raises:
            BuildFailed: a file is missing, or something else is where it is to go.
        """

        def lay(output: Output) -> Layer:
            with self._store.scratch() as scratch:
                tree = scratch.path / "tree"
                tree.mkdir(mode=0o755)
                plan = self._plan(making, other, str(tree))
                unpacked = scratch.path / "unpacked"
                if making.step.is_archive:
                    archives = sorted(Path(self._mount_path(making.step.mount_id)).iterdir())
                    add_archives(archives, unpacked, scratch, output, bytes_max=self._bytes_max)
                    plan = replace(plan, layers=(str(unpacked),))
                self._copy(plan, scratch, output)
                if making.step.is_archive:
                    # The layer itself needs the room.
                    remove_tree(str(unpacked))
                return self._commit(making, scratch, tree, {})

        try:
            return await self._watched(making, lay)
        except (ToolFailed, UnknownUser, NoImage) as error:
            raise making.failure(INVALID, "failed", str(error), "correct the step and build again") from error

    async def add_python(self, making: Making) -> Layer | None:
        """The layer with a Python of its own; None when none can be fetched, and Debian's packages have to do.

        Raises:
            BuildFailed: it cannot be laid over the image.
        """

        def add(output: Output) -> Layer | None:
            with self._store.scratch() as scratch:
                paths = making.progress.paths
                with merged(paths) as layers:
                    is_musl = any(layers.find(loader) is not None for loader in MUSL_LOADERS)
                fetched, tree = scratch.path / "fetched", scratch.path / "tree"
                try:
                    fetch_python(
                        self._uv_path, making.step.python_version, fetched, self._settings, output, is_musl=is_musl
                    )
                except ToolFailed as error:
                    output.on_line(f"no Python of its own can be fetched ({' '.join(str(error).splitlines()[-1:])})")
                    return None
                tree.mkdir(mode=0o755)
                self._copy(CopyPlan(str(tree), paths, "/", (str(fetched),)), scratch, output)
                return self._commit(making, scratch, tree, {"python_path": f"{PYTHON_DIR}/bin/python3"})

        try:
            return await self._watched(making, add)
        except ToolFailed as error:
            raise making.failure(INVALID, "failed", str(error), "correct the step and build again") from error

    def _plan(self, making: Making, other: BuiltImage | None, tree: str) -> CopyPlan:
        step, progress = making.step, making.progress
        path = progress.path_of(step)
        if step.kind == image.WORKDIR:
            return CopyPlan(tree, progress.paths, path)
        owner = None
        if step.user:
            with merged(progress.paths) as layers:
                owner = find_user(layers, progress.text(step, step.user))[:2]
        origin = (self._mount_path(step.mount_id),) if other is None else other.layers
        is_directory = step.is_directory or not step.sources or progress.text(step, step.path).endswith("/")
        return CopyPlan(
            tree,
            progress.paths,
            path,
            origin,
            step.sources or ("/",),
            is_directory,
            owner,
            step.mode,
            step.links,
            step.directories,
        )

    def _copy(self, plan: CopyPlan, scratch: Scratch, output: Output) -> None:
        # In a file: links may be more than an argument can hold.
        path = scratch.path / "plan"
        path.write_text(plan.written())
        command = (*WITH_PARENT, *own_program("squall.agent.image.layer.copy_files", str(path)))
        # Each file by the kernel; what all of them may be, only the disk says.
        limit = WriteLimit("copying files", scratch.path, lambda: 0, self._bytes_max)
        run_tool(command, own_environ(), output, Watch(None, limit=limit), (scratch.lock_fd,))

    def _commit(self, making: Making, scratch: Scratch, tree: Path, facts: Mapping[str, str]) -> Layer:
        is_forced = making.progress.is_forced
        return self._store.commit(scratch, tree, making.key, facts, replaces=is_forced, below=making.below)

    async def _watched(self, making: Making, make: Callable[[Output], T]) -> T:
        """Run in a thread what says lines; it hears of it when nobody wants the result any more."""
        loop = asyncio.get_running_loop()
        is_abandoned = threading.Event()
        output = Output(lambda text: _call_soon(loop, making.on_line, text), is_abandoned.is_set, making.hidden)

        def start_clock() -> None:
            if self._timeout_s is not None and not is_abandoned.is_set():
                limit.reschedule(loop.time() + self._timeout_s)

        def begin() -> T:
            _call_soon(loop, start_clock)
            return make(output)

        try:
            # Only once it has begun: until then all threads may be busy with other layers.
            async with asyncio.timeout(None) as limit:
                return await loop.run_in_executor(self._executor, begin)
        except WroteTooMuch as error:
            raise making.failure(INVALID, f"was ended: {error}", "", "then build again") from None
        except TimeoutError:
            if not limit.expired():
                raise
            cause, remedy = f"did not end within {self._timeout_s:g} s", f"build again, or {LONGER}"
            raise making.failure(TIMED_OUT, cause, "", remedy) from None
        finally:
            is_abandoned.set()


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: str) -> None:
    # The loop may be gone while the thread still reads the last lines.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *arguments)


def _login(making: Making) -> Login | None:
    """What the registry is told, or AWS for it; None: what this machine knows.

    Raises:
        BuildFailed: the secret is no login, or several.
    """
    if not making.step.secrets:
        return None
    try:
        return login_of(making.secret_env)
    except BadSecret as error:
        raise making.failure(INVALID, f"failed: {error.cause}", "", error.remedy) from None
