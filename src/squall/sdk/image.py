"""What containers start from: a base and steps, described here, built on a node.

Its methods are what users look through. How what they are given is checked is in `_image_arguments.py`; what takes more
than a few lines to say in steps in `_image_lowering.py`, `_image_dockerfile.py` and `_image_function.py`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.sdk import _container
from squall.sdk._environment import environment_of
from squall.sdk._facade import blocking
from squall.sdk._image_arguments import (
    absolute_target,
    check_ignore,
    check_options,
    package_names,
    pip_options,
    refuse_later,
    secrets_of,
    texts_of,
    version_of_python,
    volumes_of,
    words_of,
)
from squall.sdk._image_steps import LocalAdd, Reading, Step
from squall.sdk._options import check_env

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from squall.sdk._client import Client
    from squall.sdk._image_logs import ImageLogs
    from squall.sdk.app import App
    from squall.sdk.file_pattern_matcher import IgnoreArgument
    from squall.sdk.secret import Secret

    Secrets = Sequence[Secret] | None
    Env = dict[str, str | None] | None

CODE_DIR = "/root"
SERIES = range(10, 16)
"""Of Python 3, that there are bases of."""
_NO_ID = "this Image has no object_id yet: build it with image.build()"


class Image:
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
        image._object_id = ""
        return image

    _steps: tuple[Step, ...]
    _adds: tuple[LocalAdd, ...]
    _import_error: BaseException | None
    _object_id: str

    @staticmethod
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """A minimal Debian with Python; the series defaults to that of the Python running this.

        Raises:
            InvalidError: not a version like `3.11`, or of a series that there is no base of.
        """
        version = version_of_python("debian_slim", "python_version", python_version)
        if int(version.split(".")[1]) not in SERIES:
            raise InvalidError(
                f"Image.debian_slim(python_version={version!r}): there are bases of 3.{SERIES[0]} to 3.{SERIES[-1]}; "
                "for another Python take from_registry(..., add_python=...)"
            )
        return Image._make((Step("debian_slim", {"python_version": version, "force_build": force_build}),))

    @staticmethod
    def from_registry(
        tag: str,
        secret: Secret | None = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
        **kwargs: Any,
    ) -> Image:
        """An image of a registry, for this machine's architecture, with the variables, directory and user it has.

        Args:
            tag: as for `docker pull`; a short name is completed by the settings of the machine that builds.
            secret: for a private registry, `REGISTRY_USERNAME` and `REGISTRY_PASSWORD`, or `SERVICE_ACCOUNT_JSON`, or
                `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION`.
            setup_dockerfile_commands: lines of a Dockerfile that run before anything else is added.
            add_python: a series such as `3.12`: put a Python in that needs nothing of the image but its C library.

        Raises:
            InvalidError: a name or version that cannot be.
        """
        from squall.sdk import _image_lowering  # cold start: not every image needs it

        if kwargs:
            raise InvalidError(f"Image.from_registry(...) has no parameter {next(iter(kwargs))!r}")
        image = Image._make((_image_lowering.registry_step(tag, secret, force_build),))
        image = image.dockerfile_commands(list(setup_dockerfile_commands))
        return image._with_python(add_python, "from_registry", force_build=force_build)

    # By older names: the secret says which login it is.
    from_aws_ecr = from_gcp_artifact_registry = from_registry

    @staticmethod
    def from_dockerfile(
        path: str | Path,
        *,
        force_build: bool = False,
        context_dir: str | Path | None = None,
        ignore: IgnoreArgument | None = None,
        build_args: dict[str, str] | None = None,
        registry_secret: Secret | None = None,
        secrets: Secrets = None,
        env: Env = None,
        gpu: str | None = None,
        add_python: str | None = None,
    ) -> Image:
        """What a Dockerfile describes. It and the files it copies are read when the image is used.

        Args:
            context_dir: where its COPY lines find files; the working directory when it is None.
            ignore: patterns or a function in place of `.dockerignore`.
            registry_secret: as `secret` of `from_registry`, for the registry of its last base; no other is shown it.
        """
        refuse_later("from_dockerfile", gpu=gpu)
        reading = Reading(
            place="Image.from_dockerfile",
            context_dir=context_dir,
            ignore=ignore,
            build_args=dict(build_args or {}),
            env=check_env(env, "Image.from_dockerfile"),
            secrets=secrets_of("from_dockerfile", secrets),
            registry_secret=registry_secret,
            force_build=force_build,
        )
        image = Image._make((Step("from_dockerfile", late=lambda: _read_dockerfile(str(path), reading)),))
        return image._with_python(add_python, "from_dockerfile", force_build=force_build)

    @staticmethod
    def from_scratch(force_build: bool = False) -> Image:
        """An image without a file, for what is copied into it; neither function nor shell runs in it."""
        return Image._make((Step("from_scratch", {"force_build": force_build}),))

    @staticmethod
    def from_id(image_id: str, client: Client | None = None) -> Image:
        """An image that was built before, by its id."""
        from squall.protocol.ids import is_id  # cold start: as above

        if not isinstance(image_id, str) or not is_id(image_id, "im"):
            raise InvalidError(f"Image.from_id({image_id!r}): an id of an image begins with im-")
        image = Image._make((Step("from_image", {"image_id": image_id}),))
        image._object_id = image_id
        return image

    @staticmethod
    def from_name(name: str, *, environment_name: str | None = None, client: Client | None = None) -> Image:
        """A published image, by its `name`, `name:tag` or `environment/name:tag`; looked up when it is used.

        It is never built: a name that nothing was published under is a NotFoundError then.
        """
        if not isinstance(name, str) or not name:
            raise InvalidError(f"Image.from_name({name!r}): give the name that an image was published under")
        return Image._make((Step("from_image", published=(name, environment_of(environment_name))),))

    @staticmethod
    def micromamba(python_version: str | None = None, force_build: bool = False) -> Image:
        """A Debian with micromamba and a Python of conda-forge, for `micromamba_install`."""
        from squall.sdk import _image_lowering  # cold start: as above

        version = version_of_python("micromamba", "python_version", python_version)
        return Image._make(_image_lowering.micromamba_base(version, force_build))

    def apt_install(
        self,
        *packages: str | list[str],
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install Debian packages."""
        refuse_later("apt_install", gpu=gpu)
        names = texts_of("apt_install", packages)
        if not names:
            return self
        return self._and(self._run_step("apt_install", {"packages": names}, env, secrets, force_build))

    def pip_install(
        self,
        *packages: str | list[str],
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install Python packages.

        Raises:
            InvalidError: a package looks like an option; those go in `extra_options`.
        """
        refuse_later("pip_install", gpu=gpu)
        options = pip_options("pip_install", find_links, index_url, extra_index_url, pre, extra_options)
        return self._pip("pip_install", packages, options, env, secrets, force_build)

    def uv_pip_install(
        self,
        *packages: str | list[str],
        requirements: list[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """As `pip_install`, which also uses uv; `extra_options` are those of `uv pip install`.

        Args:
            requirements: paths of requirement files, read when the image is used.
            uv_version: another uv than the one that comes with Squall, from the package index.
        """
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("uv_pip_install", gpu=gpu)
        options = pip_options("uv_pip_install", find_links, index_url, extra_index_url, pre, extra_options)
        options["uv_version"] = uv_version or ""
        if not requirements:
            return self._pip("uv_pip_install", packages, options, env, secrets, force_build)
        names = package_names("uv_pip_install", packages)
        step = self._run_step("pip_install", options, env, secrets, force_build, "uv_pip_install")
        paths = [str(path) for path in requirements]
        return self._and(Step(step.name, late=lambda: _image_lowering.requirements(paths, names, step)))

    def pip_install_from_requirements(
        self,
        requirements_txt: str,
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install what a requirements file names; the file is read when the image is used."""
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("pip_install_from_requirements", gpu=gpu)
        options = pip_options(
            "pip_install_from_requirements", find_links, index_url, extra_index_url, pre, extra_options
        )
        step = self._run_step("pip_install", options, env, secrets, force_build, "pip_install_from_requirements")
        paths = [str(requirements_txt)]
        return self._and(Step(step.name, late=lambda: _image_lowering.requirements(paths, (), step)))

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str,
        optional_dependencies: list[str] | None = None,
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install the dependencies of a project, with those of some of its extras, and not the project itself."""
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("pip_install_from_pyproject", gpu=gpu)
        options = pip_options("pip_install_from_pyproject", find_links, index_url, extra_index_url, pre, extra_options)
        step = self._run_step("pip_install", options, env, secrets, force_build, "pip_install_from_pyproject")
        extras = tuple(optional_dependencies or ())
        path = str(pyproject_toml)
        return self._and(Step(step.name, late=lambda: _image_lowering.pyproject(path, extras, step)))

    def pip_install_private_repos(
        self,
        *repositories: str,
        git_user: str,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        gpu: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
        force_build: bool = False,
    ) -> Image:
        """Install from private repositories, `github.com/owner/name@ref` or `gitlab.com/…`.

        Args:
            git_user: whom the token belongs to.
            secrets: `GITHUB_TOKEN` or `GITLAB_TOKEN`; the token is in no layer and in no URL.

        Raises:
            InvalidError: a repository is of neither, or there is no secret.
        """
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("pip_install_private_repos", gpu=gpu)
        options = pip_options("pip_install_private_repos", find_links, index_url, extra_index_url, pre, extra_options)
        found = _image_lowering.private_repositories(repositories, git_user, options, bool(secrets))
        variables: dict[str, str | None] = {**check_env(env, "Image.pip_install_private_repos"), **found.env}
        image = self.apt_install("git", "ca-certificates")
        title = "pip_install_private_repos"
        step = self._run_step("pip_install", found.arguments, variables, secrets, force_build, title)
        return image._and(step)

    def uv_sync(
        self,
        uv_project_dir: str = "./",
        *,
        force_build: bool = False,
        groups: list[str] | None = None,
        extras: list[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install the locked dependencies of a uv project, not the project, into `/.venv`, which functions then use.

        Args:
            frozen: take `uv.lock`, which must be there, as it is; else uv brings it up to date, for the image alone.
        """
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("uv_sync", gpu=gpu)
        check_options("uv_sync", extra_options)
        project = _image_lowering.UvProject(
            str(uv_project_dir), tuple(groups or ()), tuple(extras or ()), frozen, extra_options, uv_version or ""
        )
        step = self._run_step("run_commands", {}, env, secrets, force_build, f"uv_sync {uv_project_dir}")
        return self._and(Step(step.name, late=lambda: _image_lowering.uv_sync(project, step)))

    def poetry_install_from_file(
        self,
        poetry_pyproject_toml: str,
        poetry_lockfile: str | None = None,
        *,
        ignore_lockfile: bool = False,
        force_build: bool = False,
        with_: list[str] | None = None,
        without: list[str] | None = None,
        only: list[str] | None = None,
        poetry_version: str | None = "latest",
        old_installer: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install the dependencies of a Poetry project, and not the project, as its lock file has them.

        Args:
            poetry_lockfile: `poetry.lock` beside the project's file when it is None.
            ignore_lockfile: do without one.
            with_, without, only: groups of dependencies, as Poetry knows them.
            poetry_version: of the Poetry that reads the project; it is not left in the image.
            old_installer: taken, and without a meaning: uv installs.
        """
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("poetry_install_from_file", gpu=gpu)
        project = _image_lowering.PoetryProject(
            str(poetry_pyproject_toml),
            None if poetry_lockfile is None else str(poetry_lockfile),
            ignore_lockfile,
            tuple(with_ or ()),
            tuple(without or ()),
            tuple(only or ()),
            poetry_version,
        )
        title = f"poetry_install_from_file {poetry_pyproject_toml}"
        step = self._run_step("run_commands", {}, env, secrets, force_build, title)
        return self._and(Step(step.name, late=lambda: _image_lowering.poetry(project, step)))

    def micromamba_install(
        self,
        *packages: str | list[str],
        spec_file: str | None = None,
        channels: list[str] | None = None,
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
    ) -> Image:
        """Install conda packages, or what a specification file names, into an image that has micromamba."""
        from squall.sdk import _image_lowering  # cold start: as above

        refuse_later("micromamba_install", gpu=gpu)
        names = package_names("micromamba_install", packages)
        if not names and not spec_file:
            return self
        step = self._run_step("run_commands", {}, env, secrets, force_build, "micromamba_install")
        wanted = tuple(channels or ())
        return self._and(Step(step.name, late=lambda: _image_lowering.micromamba(names, spec_file, wanted, step)))

    def run_commands(
        self,
        *commands: str | list[str],
        env: Env = None,
        secrets: Secrets = None,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        gpu: str | None = None,
        force_build: bool = False,
    ) -> Image:
        """Run shell commands, each in a shell of its own.

        Args:
            volumes: volumes and buckets by the path each is mounted at meanwhile, as for caches of downloads. What is
                written to volumes is committed when the commands have ended, well or not, and is no part of the image;
                nor does what is in them make the step run again.
        """
        refuse_later("run_commands", gpu=gpu)
        lines = texts_of("run_commands", commands)
        if not lines:
            return self
        step = self._run_step("run_commands", {"commands": lines}, env, secrets, force_build, volumes=volumes)
        return self._and(step)

    def dockerfile_commands(
        self,
        *dockerfile_commands: str | list[str],
        context_files: dict[str, str] | None = None,
        env: Env = None,
        secrets: Secrets = None,
        gpu: str | None = None,
        context_dir: str | Path | None = None,
        force_build: bool = False,
        ignore: IgnoreArgument | None = None,
        build_args: dict[str, str] | None = None,
    ) -> Image:
        """Lines of a Dockerfile, without a FROM, on top of this image; files are read when the image is used.

        Args:
            context_files: paths that COPY lines name, and the local files that are meant.
            context_dir, ignore, build_args: as in `from_dockerfile`.
        """
        refuse_later("dockerfile_commands", gpu=gpu)
        lines = texts_of("dockerfile_commands", dockerfile_commands)
        if not lines:
            return self
        reading = Reading(
            place="Image.dockerfile_commands",
            context_dir=context_dir,
            ignore=ignore,
            build_args=dict(build_args or {}),
            context_files=dict(context_files or {}),
            env=check_env(env, "Image.dockerfile_commands"),
            secrets=secrets_of("dockerfile_commands", secrets),
            force_build=force_build,
        )
        return self._and(Step("dockerfile_commands", late=lambda: _read_dockerfile(lines, reading)))

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: Env = None,
        secrets: Secrets = None,
        volumes: Mapping[str | PurePosixPath, object] | None = None,
        gpu: str | list[str] | None = None,
        cpu: float | None = None,
        memory: int | None = None,
        timeout: int = 3600,
        cloud: str | None = None,
        region: str | Sequence[str] | None = None,
        force_build: bool = False,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        include_source: bool = True,
    ) -> Image:
        """Run a Python function in a container of the image and keep what it leaves in the file system.

        It runs again when its source, its arguments, the values it takes from its module, or `cpu`, `memory` and
        `timeout` change; not when a function or class that it uses changes. Of values that cannot be pickled, such as
        locks and connections, the class counts alone.

        Args:
            volumes: as in `run_commands`; `commit()` has nothing to do then.
            cpu: processors it may use; memory: MiB it may use; timeout: seconds it may take.
            include_source: its module travels along, and is no part of the image.

        Raises:
            InvalidError: not a function that a container could call.
        """
        from squall.sdk import _image_function  # cold start: as above

        refuse_later("run_function", gpu=gpu)
        call = _image_function.FunctionCallStep(raw_f, tuple(args), dict(kwargs or {}), include_source)
        limits = _image_function.limits(cpu, memory, timeout)
        title = f"run_function {call.name}"
        step = self._run_step("run_function", limits, env, secrets, force_build, title, volumes)
        return self._and(Step(step.name, late=lambda: (call.step(step),)))

    def env(self, vars: dict[str, str]) -> Image:  # noqa: A002 - the documented name
        """Set variables for later steps and for containers."""
        if not isinstance(vars, dict) or not all(isinstance(text, str) for pair in vars.items() for text in pair):
            raise InvalidError("Image.env(...) takes a dictionary of strings")
        return self._with("env", variables=dict(vars))

    def workdir(self, path: str | PurePosixPath) -> Image:
        """The directory that later steps and containers start in."""
        return self._with("workdir", path=str(path))

    def entrypoint(self, entrypoint_commands: list[str]) -> Image:
        """What runs what containers are to run; it must end in executing its arguments."""
        return self._with("entrypoint", words=words_of("entrypoint", entrypoint_commands))

    def cmd(self, cmd: list[str]) -> Image:
        """What containers run that are told nothing else; functions do not heed it."""
        return self._with("cmd", words=words_of("cmd", cmd))

    def shell(self, shell_commands: list[str]) -> Image:
        """What later `run_commands` run their lines with, such as `["/bin/bash", "-c"]`."""
        return self._with("shell", words=words_of("shell", shell_commands))

    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """Add one file. Without `copy` it is attached when a container starts and is no part of the image.

        A target that ends in a slash keeps the file's name.
        """
        target = absolute_target("add_local_file", remote_path)
        if str(remote_path).endswith("/"):
            target = f"{target.rstrip('/')}/{os.path.basename(str(local_path))}"
        return self._with_files(LocalAdd("file", str(local_path), target, None), copy)

    def add_local_dir(
        self, local_path: str | Path, remote_path: str, *, copy: bool = False, ignore: IgnoreArgument = ()
    ) -> Image:
        """Add a tree; `ignore` takes patterns as in `.dockerignore`, or a function of the relative path."""
        check_ignore(ignore)
        target = absolute_target("add_local_dir", remote_path)
        return self._with_files(LocalAdd("dir", str(local_path), target, ignore), copy)

    def add_local_python_source(self, *modules: str, copy: bool = False, ignore: IgnoreArgument | None = None) -> Image:
        """Add modules or packages that can be imported here, below /root; only `.py` files unless `ignore` says."""
        image = self
        for name in modules:
            if not isinstance(name, str):
                raise InvalidError(f"Image.add_local_python_source({name!r}): give the names of modules")
            if ignore is not None:
                check_ignore(ignore)
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

    @blocking
    async def build(self, app: App | None = None) -> Image:
        """Build the image now, for an app that runs or for none, and give it its id.

        Raises:
            ImageBuildError: it cannot be built; the message has the step and its last lines.
            InvalidError: the app does not run.
        """
        from squall.sdk import _client, _output  # cold start: as above
        from squall.sdk._image_build import Builds  # cold start: as above

        client = _client.current()
        await client.connect()
        builds = Builds(client, "", _output.current()) if app is None else app.running_builds("Image.build(app=…)")
        try:
            build = await builds.begin(self, "the image that build() was called of")
            await builds.finish(build)
        finally:
            if app is None:
                builds.close()
        self._object_id = build.image_id
        return self

    @blocking
    async def hydrate(self, client: Client | None = None) -> Image:
        """Look up the id of an image that is named, or known by its id.

        Raises:
            NotFoundError: there is none.
            InvalidError: the image is described by steps: `build()` gives it an id.
        """
        from squall.protocol.image_catalog import ImageGet, ImageInfo  # cold start: as above
        from squall.sdk import _client  # cold start: as above

        if self._object_id:
            return self
        published = self._steps[0].published
        if published is None or len(self._steps) > 1:
            raise InvalidError("Image.hydrate(): this image is described by steps; build it with image.build()")
        info = await (client or _client.current()).request("ImageGet", ImageGet(*published), ImageInfo)
        self._object_id = info.image_id
        return self

    @blocking
    async def publish(
        self,
        name: str,
        *,
        environment_name: str | None = None,
        experimental_options: dict[str, Any] | None = None,
        client: Client | None = None,
    ) -> None:
        """Let a `name` or `name:tag` stand for this image, for `Image.from_name`; what it stood for is kept as history.

        Raises:
            InvalidError: the image has no id yet, or the name is none.
        """
        from squall.protocol.image_catalog import ImageName, ImagePublish  # cold start: as above
        from squall.sdk import _client  # cold start: as above

        refuse_later("publish", experimental_options=experimental_options)
        if not self._object_id:
            raise InvalidError(f"Image.publish({name!r}): this image has no id yet; build it with image.build() first")
        request = ImagePublish(self._object_id, name, environment_of(environment_name))
        await (client or _client.current()).request("ImagePublish", request, ImageName)

    @property
    def object_id(self) -> str:
        """The id of an image that was built, or named by it.

        Raises:
            AttributeError: it was not.
        """
        if not self._object_id:
            raise AttributeError(_NO_ID)
        return self._object_id

    @property
    def logs(self) -> ImageLogs:
        """What its steps printed when they were built.

        Raises:
            InvalidError: it has not been built.
        """
        from squall.sdk._image_logs import ImageLogs  # cold start: only where somebody reads them

        if not self._object_id:
            raise InvalidError("Image.logs: this image has not been built; build it with image.build()")
        return ImageLogs(self._object_id)

    @property
    def steps(self) -> tuple[Step, ...]:
        """What builds it."""
        return self._steps

    @property
    def adds(self) -> tuple[LocalAdd, ...]:
        """What is attached when its containers start."""
        return self._adds

    def __repr__(self) -> str:
        return f"<Image: {' → '.join(step.name for step in self._steps)}>"

    def _with(self, name: str, **arguments: Any) -> Image:
        return self._and(Step(name, arguments))

    def _and(self, step: Step) -> Image:
        self._check_open(step.name)
        return self._make((*self._steps, step))

    def _run_step(
        self,
        name: str,
        arguments: dict[str, Any],
        env: Env,
        secrets: Secrets,
        force_build: bool,
        title: str = "",
        volumes: Mapping[str | PurePosixPath, object] | None = None,
    ) -> Step:
        """A step in a container, of a method of the name that its title begins with."""
        method = title.partition(" ")[0] or name
        variables = check_env(env, f"Image.{method}")
        more = {"title": title} if title else {}
        return Step(
            name,
            {**arguments, "env": variables, "force_build": force_build, **more},
            secrets=secrets_of(method, secrets),
            volumes=volumes_of(method, volumes),
        )

    def _pip(
        self,
        method: str,
        packages: tuple[str | list[str], ...],
        options: dict[str, Any],
        env: Env,
        secrets: Secrets,
        force_build: bool,
    ) -> Image:
        names = package_names(method, packages)
        if not names and not options["extra_options"]:
            return self
        return self._and(self._run_step("pip_install", {"packages": names, **options}, env, secrets, force_build))

    def _with_python(self, python_version: str | None, method: str, *, force_build: bool) -> Image:
        if python_version is None:
            return self
        version = version_of_python(method, "add_python", python_version)
        return self._with("add_python", python_version=version, force_build=force_build)

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


def _read_dockerfile(what: str | tuple[str, ...], reading: Reading) -> tuple[Step, ...]:
    """The steps of the Dockerfile at a path, or of lines."""
    from squall.sdk import _image_dockerfile  # cold start: containers never read one

    if isinstance(what, str):
        return _image_dockerfile.read_file(what, reading)
    return _image_dockerfile.read_lines(what, reading)
