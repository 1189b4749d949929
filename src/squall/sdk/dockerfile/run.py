"""RUN: its three forms, and the flags.

`--mount` is kept as data for whoever builds, but `type=ssh`, which nothing here could give. `--network` and
`--security` may say what is so anyway; `--device` is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.sdk.dockerfile.error import shown
from squall.sdk.dockerfile.flags import Flags, nearest, truth
from squall.sdk.dockerfile.lines import Written, json_words
from squall.sdk.dockerfile.records import Run, RunMount
from squall.sdk.dockerfile.text import Text

if TYPE_CHECKING:
    from squall.sdk.dockerfile.stage import StageReader

_AS_ALWAYS = {"network": "default", "security": "sandbox"}
_TARGETS = ("target", "dst", "destination")
_WRITABLE, _READ_ONLY = ("rw", "readwrite"), ("ro", "readonly")
_OPTIONS = {
    "bind": (*_TARGETS, *_WRITABLE, *_READ_ONLY, "source", "src", "from"),
    "cache": (*_TARGETS, *_WRITABLE, *_READ_ONLY, "id", "sharing", "source", "src", "from", "mode", "uid", "gid"),
    "tmpfs": (*_TARGETS, "size"),
    "secret": (*_TARGETS, "id", "env", "required", "mode", "uid", "gid", "source", "src"),
}


def read(reader: StageReader, written: Written) -> None:
    """Take a RUN line.

    Raises:
        DockerfileError: it has no command, or a flag that would change what it does and cannot be heeded.
    """
    flags = Flags(written, values=("network", "security", "device"), lists=("mount",))
    for name, always in _AS_ALWAYS.items():
        value = flags.value(name)
        if value and value != always:
            raise written.line.error(f"--{name}={shown(value, 40)} cannot be had; steps have --{name}={always}")
    if flags.value("device"):
        raise written.line.error("--device cannot be had in a build; use gpu= of the function, or of run_function")
    if not written.rest:
        raise written.line.error("RUN has flags, and no command")
    mounts = tuple(_mount(reader, written, value) for value in flags.all("mount"))
    arguments = json_words(written)
    if arguments == ():
        raise written.line.error('RUN [] names no program; write RUN ["program", "argument"]')
    command, script = ("", "") if arguments else _command(written)
    reader.add(
        Run(written.line, command, arguments or (), script, reader.shell, reader.run_args(), mounts, reader.workdir)
    )


def _command(written: Written) -> tuple[str, str]:
    """The text for the shell, and the script that needs none; one of them is empty."""
    heredocs = written.heredocs
    if len(heredocs) == 1 and written.rest == heredocs[0].word:
        # The document is the command; its variables are the shell's business.
        content = heredocs[0].content
        if not content.strip():
            raise written.line.error("the here-document is empty; there is nothing to run")
        return ("", content) if content.startswith("#!") else (content, "")
    # Otherwise the shell reads the document itself, in which leading tabs are gone already.
    pieces = [written.rest, *(f"{one.content}{one.name}" for one in heredocs)]
    return "\n".join(pieces), ""


def _mount(reader: StageReader, written: Written, flag: str) -> RunMount:
    options = _options(written, flag)
    kind = options.pop("type", "bind") or ""
    if kind == "ssh":
        raise written.line.error("--mount=type=ssh cannot be had: a build has no SSH agent; use a secret with a key")
    if kind not in _OPTIONS:
        raise written.line.error(f"there is no --mount=type={shown(kind, 40)}" + nearest(kind, _OPTIONS))
    for name in options:
        if name not in _OPTIONS[kind]:
            raise written.line.error(
                f"--mount=type={kind} has no option {shown(name, 40)!r}" + nearest(name, _OPTIONS[kind])
            )
    target = reader.text(_first(options, *_TARGETS))
    if not target and kind != "secret":
        raise written.line.error(f"--mount=type={kind} needs target=, a path in the image")
    source = reader.plain(_first(options, "source", "src"), "source=")
    name = _first(options, "from")
    stage = reader.from_stage(name, written) if name else None
    id_ = reader.plain(_first(options, "id"), "id=")
    if kind == "secret":
        id_ = _secret_id(id_ or source, target, written)
    is_read_only = any(_is_on(written, options, one) for one in _READ_ONLY)
    return RunMount(
        kind,
        target,
        source if kind == "bind" else "",
        stage,
        name if stage is None else "",
        id_,
        _first(options, "env"),
        _is_on(written, options, "required"),
        any(_is_on(written, options, one) for one in _WRITABLE) or (kind != "bind" and not is_read_only),
    )


def _secret_id(name: str, target: Text, written: Written) -> str:
    found = name or (target.plain.rpartition("/")[2] if target.is_plain else "")
    if not found:
        raise written.line.error("--mount=type=secret needs id=, the name of the secret")
    return found


def _options(written: Written, flag: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for option in flag.split(","):
        name, is_valued, value = option.partition("=")
        name = name.strip().lower()
        if name in found:
            raise written.line.error(f"--mount has {shown(name, 40)!r} twice")
        found[name] = value.strip() if is_valued else None
    return found


def _first(options: dict[str, str | None], *names: str) -> str:
    return next((value for name in names if (value := options.get(name))), "")


def _is_on(written: Written, options: dict[str, str | None], name: str) -> bool:
    return name in options and truth(written, f"{name} of --mount", options[name])
