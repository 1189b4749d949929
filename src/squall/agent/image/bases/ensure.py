"""The first layer of `Image.debian_slim()`: found in the store, fetched from a registry, or made of Debian's packages.

In this order; docs/decisions/0021 says why. What fails half-way is never used, and a registry that does not answer
costs a few seconds once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from squall.agent.image.bases.debian import BaseUnavailable, DebianBase, find_base, known_bases, make_debian
from squall.agent.image.bases.python_image import image_for
from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.machine.write_limit import WroteTooMuch
from squall.agent.image.oci.credentials import registry_of
from squall.agent.image.oci.pull import pull_image
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.registry import list_series
from squall.protocol import image, image_steps

ANSWER_S = 5.0
"""How long a registry may be silent while Debian can serve as well."""
ONLY_ANSWER_S = 30.0
"""The same while nobody else can."""
SILENT_FOR_S = 300.0
"""How long one that was silent is left alone."""
_FACTS = frozenset({"python_path", "python_version", "suite", "env", "workdir", "image", "digest"})


def ensure_base(
    store: LayerStore,
    settings: MachineSettings,
    python_version: str,
    on_line: Callable[[str], None],
    *,
    key: str = "",
    is_forced: bool = False,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Layer:
    """The layer of `debian_slim(python_version)`, made now unless it is there.

    Blocks, and may be called by several processes at once: one makes it, the others wait and are told what it says.
    Once `is_cancelled` says so, the making ends soon.

    Args:
        key: of a base that is kept beside the one that everybody has.

    Raises:
        BaseUnavailable: it cannot be had.
    """
    key = key or image.cache_key("", image_steps.debian_slim(python_version))
    present = store.find(key)
    if present is not None and not is_forced:
        return present
    with store.locked(key, is_cancelled=is_cancelled, on_line=on_line) as say:
        present = store.find(key)
        if present is not None and not is_forced:
            return present
        with store.scratch() as scratch:
            attempt = _Attempt(python_version, settings, store.data_dir, Output(say, is_cancelled))
            root, facts = attempt.make(scratch)
            return store.commit(scratch, root, key, facts, replaces=present is not None)


class _Attempt:
    """One base being made from whoever has it."""

    def __init__(self, python_version: str, settings: MachineSettings, data_dir: Path, output: Output) -> None:
        self._python_version = python_version
        self._settings = settings
        self._output = output
        self._note = data_dir / "cache" / "silent-registry"

    def make(self, scratch: Scratch) -> tuple[Path, dict[str, str]]:
        """The directory with the files, and the facts."""
        debian = find_base(self._python_version, self._settings)
        try:
            return self._pull(scratch, debian)
        except RegistryFailure as failure:
            if self._output.is_cancelled():
                raise BaseUnavailable("cancelled") from None
            if debian is None:
                raise BaseUnavailable(self._explained(failure)) from failure
            refusal = str(failure)
        if refusal:
            self._output.on_line(f"no base from a registry ({refusal}); making one of Debian's packages")
        root = scratch.path / "fs"
        try:
            return root, make_debian(debian, self._settings, scratch, root, self._output)
        except BaseUnavailable as error:
            raise BaseUnavailable(f"{error}\nand no registry served it: {refusal}" if refusal else str(error)) from None

    def _pull(self, scratch: Scratch, debian: DebianBase | None) -> tuple[Path, dict[str, str]]:
        if not self._settings.python_image:
            raise RegistryFailure("")
        name = image_for(self._settings.python_image, self._python_version)
        if debian is not None and (ago_s := self._silent_ago_s(name)) is not None:
            raise RegistryFailure(f"{name}: nobody answered {ago_s:.0f} s ago")
        root = scratch.path / "pulled"
        try:
            answer_s = ONLY_ANSWER_S if debian is None else ANSWER_S
            facts = pull_image(name, self._settings, scratch, root, self._output, needs_python=True, answer_s=answer_s)
        except WroteTooMuch as error:
            # Nobody else makes a smaller one.
            raise BaseUnavailable(f"cannot make a base image with Python {self._python_version}: {error}") from None
        except RegistryFailure as failure:
            if failure.is_silent:
                self._note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._note.write_text(name)
            raise
        # As whom and with which command its author wants it to start does not count: this is a base like Debian's.
        return root, {name: value for name, value in facts.items() if name in _FACTS}

    def _silent_ago_s(self, name: str) -> float | None:
        """How long ago the registry of this image was silent, if that still counts."""
        with contextlib.suppress(OSError):
            ago_s = time.time() - self._note.stat().st_mtime  # tidy: compared with times of files
            # Another image of the same registry will not be answered either.
            if 0 <= ago_s < SILENT_FOR_S and registry_of(self._note.read_text()) == registry_of(name):
                return ago_s
        return None

    def _explained(self, failure: RegistryFailure) -> str:
        """Why there is no base at all, and which there are."""
        causes = []
        if str(failure):
            causes.append(f"no registry served {failure}")
        if failure.is_missing:
            series = list_series(self._settings.python_image, self._settings, self._output)
            causes += [f"the registry has {', '.join(series)}"] if series else []
        bases = known_bases(self._settings)
        if bases:
            have = ", ".join(sorted({f"{base.python_version} ({base.suite})" for base in bases}))
            causes.append(f"the mirrors of this machine have {have}")
            remedy = "name one of these as python_version"
        else:
            causes.append("the apt of this machine names no Debian or Ubuntu mirror")
            remedy = "add one to /etc/apt/sources.list.d"
        if self._settings.python_image:
            remedy += ", or name an image that can be had with SQUALL_PYTHON_IMAGE"
        return f"cannot make a base image with Python {self._python_version}: {'; '.join(causes)}; {remedy}"
