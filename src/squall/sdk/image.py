"""What containers start from: a base and steps, described here, built on a node."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from squall.exception import InvalidError
from squall.sdk import _container
from squall.sdk._options import check_env

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from squall.sdk._mount import LocalFile, Mount
    from squall.sdk.file_pattern_matcher import IgnoreArgument

CODE_DIR = "/root"
HIDDEN = ("/dev", "/proc", "/run/squall", "/sys")
"""What containers have of the system at these places covers the image's own files there."""


class LocalAdd(NamedTuple):
    """Files of this machine for an image; read when the image is used, not before."""

    kind: str
    """file, dir or module."""
    source: str
    target: str
    """The directory in the container that holds them; for a file, the whole path."""
    ignore: IgnoreArgument | None

    def files(self) -> tuple[str, list[LocalFile]]:
        """The directory in the container, and the files below it.

        Raises:
            InvalidError: there is nothing to add.
        """
        from squall.sdk import _mount, _source  # cold start: never read in containers
        from squall.sdk.file_pattern_matcher import as_predicate  # cold start: as above

        if self.kind == "file":
            self._check_file()
            directory, name = os.path.split(self.target)
            return directory or "/", [_mount.LocalFile(os.path.abspath(self.source), name)]
        if self.kind == "dir":
            self._check_directory()
            ignore = as_predicate(self.ignore or ())
            return self.target, list(_mount.find_files(os.path.abspath(self.source), "", ignore))
        source = _source.python_module_source(self.source)
        if source.kind == _source.BY_FILE:
            return self.target, [_mount.LocalFile(source.path, os.path.basename(source.path))]
        only_code = as_predicate(self.ignore) if self.ignore is not None else _mount.is_not_python
        found = _mount.find_files(
            source.path, source.module_name, lambda path: _mount.is_code_noise(path) or only_code(path)
        )
        return self.target, list(found)

    def _check_file(self) -> None:
        what = f"add_local_file({self.source!r}, …): it"
        if os.path.isdir(self.source):
            raise InvalidError(f"{what} is a directory; use add_local_dir")
        # What is not there at all is told when it is read.
        if os.path.exists(self.source) and not os.path.isfile(self.source):
            raise InvalidError(f"{what} is no regular file, so its content cannot be added")

    def _check_directory(self) -> None:
        what = f"add_local_dir({self.source!r}, …):"
        if os.path.isfile(self.source):
            raise InvalidError(f"{what} it is a file; use add_local_file")
        if not os.path.isdir(self.source):
            raise InvalidError(f"{what} there is no such directory here")

    def mount(self) -> tuple[str, Mount]:
        """The files, hashed, and the directory they belong to."""
        from squall.sdk import _mount  # cold start: as above

        target, files = self.files()
        return target, _mount.make_mount(files, f"{self.source} for {self.target}")


class Step(NamedTuple):
    """One step: a function of `squall.protocol.image` and its arguments, or files to copy."""

    name: str
    arguments: dict[str, Any]
    add: LocalAdd | None = None


class _NamesThatComeLater(type):
    """Says of an image's missing names which are to come; most of them are asked of the class: `Image.from_…`."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> object:
            raise AttributeError(_missing(name, "type object 'Image'"))


class Image(metaclass=_NamesThatComeLater):
    """A container image: begin with `Image.debian_slim()`, each method gives a new image with one more step.

    Nothing is read or built until an app that uses the image is run. Equal steps are built once and kept.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Image() cannot be made directly; begin with Image.debian_slim()")

    @classmethod
    def _make(cls, steps: tuple[Step, ...], adds: tuple[LocalAdd, ...] = ()) -> Image:
        image = object.__new__(cls)
        image._steps = steps
        image._adds = adds
        image._import_error = None
        return image

    _steps: tuple[Step, ...]
    _adds: tuple[LocalAdd, ...]
    _import_error: BaseException | None

    @staticmethod
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """A minimal Debian with Python; the series defaults to that of the Python running this.

        Raises:
            InvalidError: not a version like `3.11`. Which can be had is found out when the image is built.
        """
        version = python_version
        if version is None:
            version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        parts = version.split(".") if isinstance(version, str) else []
        if not 2 <= len(parts) <= 3 or parts[0] != "3" or not all(part.isdigit() for part in parts):
            raise InvalidError(f"Image.debian_slim(python_version={python_version!r}): write a version such as '3.11'")
        return Image._make((Step("debian_slim", {"python_version": version, "force_build": force_build}),))

    def apt_install(
        self,
        *packages: str | list[str],
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Install Debian packages."""
        _refuse("apt_install", secrets=secrets, gpu=gpu)
        names = _texts("apt_install", packages)
        if not names:
            return self
        return self._with(
            "apt_install", packages=names, env=check_env(env, "Image.apt_install"), force_build=force_build
        )

    def pip_install(
        self,
        *packages: str | list[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Install Python packages.

        Raises:
            InvalidError: a package looks like an option; those go in `extra_options`.
        """
        _refuse("pip_install", secrets=secrets, gpu=gpu)
        names = _texts("pip_install", packages)
        options = [name for name in names if name.startswith("-")]
        if options:
            raise InvalidError(f"Image.pip_install({options[0]!r}): that is an option; give it as extra_options=")
        if not names and not extra_options:
            return self
        return self._with(
            "pip_install",
            packages=names,
            find_links=find_links or "",
            index_url=index_url or "",
            extra_index_url=extra_index_url or "",
            pre=pre,
            extra_options=extra_options,
            env=check_env(env, "Image.pip_install"),
            force_build=force_build,
        )

    def run_commands(
        self,
        *commands: str | list[str],
        env: dict[str, str | None] | None = None,
        secrets: Sequence[object] | None = None,
        volumes: dict[str | PurePosixPath, object] | None = None,
        gpu: str | None = None,
        force_build: bool = False,
    ) -> Image:
        """Run shell commands, each in a shell of its own."""
        _refuse("run_commands", secrets=secrets, volumes=volumes, gpu=gpu)
        lines = _texts("run_commands", commands)
        if not lines:
            return self
        return self._with(
            "run_commands", commands=lines, env=check_env(env, "Image.run_commands"), force_build=force_build
        )

    def env(self, vars: dict[str, str]) -> Image:  # noqa: A002 - the documented name
        """Set variables for later steps and for containers."""
        if not isinstance(vars, dict) or not all(isinstance(text, str) for pair in vars.items() for text in pair):
            raise InvalidError("Image.env(...) takes a dictionary of strings")
        return self._with("env", variables=dict(vars))

    def workdir(self, path: str | PurePosixPath) -> Image:
        """The directory that later steps and containers start in."""
        return self._with("workdir", path=str(path))

    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """Add one file. Without `copy` it is attached when a container starts and is no part of the image.

        A target that ends in a slash keeps the file's name.
        """
        target = _absolute("add_local_file", remote_path)
        if str(remote_path).endswith("/"):
            target = f"{target.rstrip('/')}/{os.path.basename(str(local_path))}"
        return self._with_files(LocalAdd("file", str(local_path), target, None), copy)

    def add_local_dir(
        self, local_path: str | Path, remote_path: str, *, copy: bool = False, ignore: IgnoreArgument = ()
    ) -> Image:
        """Add a tree; `ignore` takes patterns as in `.dockerignore`, or a function of the relative path."""
        _check_ignore(ignore)
        target = _absolute("add_local_dir", remote_path)
        return self._with_files(LocalAdd("dir", str(local_path), target, ignore), copy)

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: IgnoreArgument | None = None) -> Image:
        """Add modules or packages that can be imported here, below /root; only `.py` files unless `ignore` says."""
        image = self
        for name in modules:
            if not isinstance(name, str):
                raise InvalidError(f"Image.add_local_python_source({name!r}): give the names of modules")
            if ignore is not None:
                _check_ignore(ignore)
            image = image._with_files(LocalAdd("module", name, CODE_DIR, ignore), copy)
        return image

    def pipe(self, func: Callable[..., Image], *args: Any, **kwargs: Any) -> Image:
        """Apply a function from image to image."""
        return func(self, *args, **kwargs)

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Around imports of what only this image has: they may fail here, and must not in its own containers."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - any import may fail for any reason where its package is not meant
            if not isinstance(error, ImportError):
                warnings.warn(f"an import failed in a block of Image.imports(): {error!r}", stacklevel=3)
            if _container.current() is not None:
                # Whether this container runs this image is known when its function has been found.
                self._import_error = error

    def raise_import_error(self) -> None:
        """In a container that runs this image: raise what `imports` held back."""
        if self._import_error is not None:
            raise self._import_error

    @property
    def steps(self) -> tuple[Step, ...]:
        """What builds it."""
        return self._steps

    @property
    def adds(self) -> tuple[LocalAdd, ...]:
        """What is attached when its containers start."""
        return self._adds

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            raise AttributeError(_missing(name, "'Image' object"))

    def __repr__(self) -> str:
        return f"<Image: {' → '.join(step.name for step in self._steps)}>"

    def _with(self, name: str, **arguments: Any) -> Image:
        self._check_open(name)
        return self._make((*self._steps, Step(name, arguments)))

    def _with_files(self, add: LocalAdd, is_copied: bool) -> Image:
        if not is_copied:
            return self._make(self._steps, (*self._adds, add))
        self._check_open("an add with copy=True")
        return self._make((*self._steps, Step("copy", {}, add)))

    def _check_open(self, name: str) -> None:
        if self._adds:
            raise InvalidError(
                f"Image: {name} after {self._adds[-1].source!r} was added without copy=True: such files are attached "
                "when a container starts, so no step can see them. Add them last, or with copy=True, which makes them "
                "part of the image"
            )


def _missing(name: str, of: str) -> str:
    from squall.sdk import _later  # cold start: only where there is no such name

    later = f"Image.{name} is not in this version of Squall yet"
    return later if name in _later.OF_IMAGE else f"{of} has no attribute {name!r}"


def _refuse(method: str, **given: object) -> None:
    for name, value in given.items():
        if value:
            raise InvalidError(f"Image.{method}: {name}= is not in this version of Squall yet; leave it out")


def _texts(method: str, given: tuple[str | list[str], ...]) -> tuple[str, ...]:
    found: list[str] = []
    for one in given:
        texts = [one] if isinstance(one, str) else one
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise InvalidError(f"Image.{method}({one!r}): give strings, or lists of strings")
        found.extend(texts)
    return tuple(found)


def _absolute(method: str, path: str) -> str:
    text = os.path.normpath(str(path))
    if not text.startswith("/"):
        raise InvalidError(f"Image.{method}(…, {path!r}): the target must be an absolute path")
    text = "/" + text.lstrip("/")  # two slashes at the beginning are left alone by normpath
    place = next((place for place in HIDDEN if f"{text}/".startswith(f"{place}/")), None)
    if place is not None:
        raise InvalidError(
            f"Image.{method}(…, {path!r}): containers have a {place} of their own, which would hide the files; choose "
            "another target"
        )
    return text


def _check_ignore(ignore: IgnoreArgument) -> None:
    from squall.sdk.file_pattern_matcher import as_predicate  # cold start: only for images that name files

    as_predicate(ignore)
