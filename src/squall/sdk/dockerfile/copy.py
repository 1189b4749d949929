"""COPY and ADD as data; where their files are on this machine is for `context.py`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from squall.sdk.dockerfile.error import shown
from squall.sdk.dockerfile.flags import Flags
from squall.sdk.dockerfile.lines import Written, json_words
from squall.sdk.dockerfile.records import Copy, Inline
from squall.sdk.dockerfile.text import Text

if TYPE_CHECKING:
    from squall.sdk.dockerfile.stage import StageReader

_VALUES = ("chown", "chmod")
_SWITCHES = ("link", "parents")
_ONLY_ADD = ("checksum",)
_ADD_SWITCHES = ("keep-git-dir", "unpack")
_URL = re.compile(r"https?://", re.IGNORECASE)
_GIT = re.compile(r"(git|ssh)://|git@[^/]+:|https?://[^#?]+\.git(?:[#?]|\Z)", re.IGNORECASE)
_CHECKSUM = re.compile(r"sha256:[0-9a-fA-F]{64}\Z")
_OCTAL = re.compile(r"[0-7]{1,5}\Z", re.ASCII)


def read(reader: StageReader, written: Written) -> None:
    """Take a COPY or ADD line.

    Raises:
        DockerfileError: it has no source or target, or asks for what cannot be done.
    """
    is_add = written.keyword == "ADD"
    flags = Flags(
        written,
        values=(*_VALUES, *(_ONLY_ADD if is_add else ("from",))),
        switches=(*_SWITCHES, *(_ADD_SWITCHES if is_add else ())),
        lists=("exclude",),
    )
    found = json_words(written)
    words = list(found) if found is not None else written.rest.split()
    if len(words) < 2:
        what = f"no target after {shown(words[0], 60)!r}" if words else "neither source nor target"
        raise written.line.error(f"{written.keyword} has {what}; write {written.keyword} source… target")
    documents = {one.word: one for one in written.heredocs}
    inline: list[Inline] = []
    sources: list[str] = []
    urls: list[str] = []
    for word in words[:-1]:
        if document := documents.get(word):
            content = document.content
            if not document.is_literal:
                # <<'EOF' is what to use for a script, so the message about a variable says so.
                content = reader.plain(
                    content, f"the document (<<'{document.name}' keeps all as it is)", keeps_quotes=True
                )
            inline.append(Inline(document.name, content))
            continue
        source = reader.plain(word, f"the source {shown(word, 60)}")
        (urls if _is_url(source, written) else sources).append(_source(source, word, written))
    target = reader.text(words[-1])
    name = flags.value("from")
    stage = reader.from_stage(name, written) if name else None
    made = Copy(
        written.line,
        tuple(sources),
        target,
        reader.workdir,
        stage,
        name if stage is None else "",
        tuple(inline),
        reader.text(flags.value("chown")),
        _mode(reader, written, flags.value("chmod")),
        bool(flags.switch("parents")),
        flags.all("exclude"),
        is_add,
        tuple(urls),
        _checksum(reader, written, flags.value("checksum")),
        flags.switch("unpack"),
    )
    _check(made, written)
    reader.add(made)


def ends_as_directory(target: Text) -> bool:
    """Whether a target can only be a directory, the way it is written."""
    end = target.parts[-1] if target.parts else ""
    if not isinstance(end, str):
        return False
    return end.endswith("/") or (end.rpartition("/")[2] in (".", "..") and ("/" in end or len(target.parts) == 1))


def _check(made: Copy, written: Written) -> None:
    if not made.target:
        raise written.line.error("the target is empty; is a variable in it not set?")
    count = len(made.sources) + len(made.inline) + len(made.urls)
    is_of_image = not made.target.is_plain and not isinstance(made.target.parts[-1], str)
    if count > 1 and not ends_as_directory(made.target) and made.target.template != made.workdir:
        raise written.line.error("several sources need a directory: end the target with '/'")
    if is_of_image and made.is_from_context:
        raise written.line.error(
            "the target ends in a variable that only the image has: end it with '/' if it is a directory, "
            "or name the file after it"
        )
    if made.checksum and len(made.urls) != 1:
        raise written.line.error("--checksum is for one URL")


def _source(source: str, word: str, written: Written) -> str:
    if not source:
        raise written.line.error(f"the source {shown(word, 60)!r} is empty; is a variable in it not set?")
    return source


def _is_url(source: str, written: Written) -> bool:
    if _GIT.match(source):
        raise written.line.error("a git repository cannot be a source here; clone it in a RUN line")
    if not _URL.match(source):
        return False
    if written.keyword != "ADD":
        raise written.line.error("COPY takes no URL; ADD does")
    return True


def _mode(reader: StageReader, written: Written, flag: str) -> int:
    value = reader.plain(flag, "--chmod")
    if not value:
        return 0
    if not _OCTAL.match(value) or not 0 < int(value, 8) <= 0o7777:
        raise written.line.error(f"--chmod={shown(value, 40)} cannot be read; write it in digits: --chmod=755")
    return int(value, 8)


def _checksum(reader: StageReader, written: Written, flag: str) -> str:
    value = reader.plain(flag, "--checksum")
    if value and not _CHECKSUM.match(value):
        raise written.line.error(
            f"--checksum={shown(value, 40)} cannot be read; write sha256: and 64 hexadecimal digits"
        )
    return value.lower()
