"""`squall volume get`: files of a volume to this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.landing import Landing, check_free, check_name, is_same_link, is_there, landed, put_link
from squall.cli.progress import Progress
from squall.cli.server_calls import ask, ask_pages, require_server
from squall.cli.volume_target import asset_of, version_option
from squall.protocol.records import replace
from squall.protocol.volume import (
    BLOCK_BYTES,
    DIRECTORY,
    SYMLINK,
    VolumeBlocks,
    VolumeBlocksGet,
    VolumeEntry,
    VolumeList,
    VolumeListing,
    VolumeStat,
    VolumeStatted,
    from_wire,
    to_wire,
)
from squall.sdk import _client
from squall.sdk._pending import iterate
from squall.sdk._terminal_text import size_text
from squall.sdk._volume_reader import VolumeReader

Found: TypeAlias = tuple[Sequence[str], VolumeEntry]
"""What is to come, with its names from the directory here on."""


@click.command("get", epilog="Example: squall volume get weights model.bin .")
@environment_option
@click.argument("name")
@click.argument("remote")
@click.argument("local", default=".")
@click.option("-f", "--force", "is_forced", is_flag=True, help="Replace files that are there.")
@version_option
def get(name: str, remote: str, local: str, is_forced: bool, version: int | None) -> None:
    """Get a file or directory of volume NAME, all of one version.

    A file comes into LOCAL where that is a directory or ends with a slash, and is called LOCAL otherwise. Of a
    directory comes all that is in it. LOCAL may be - for standard output. Get again what was cut off: files that are
    there with their size and time are left alone, and half a file goes on.
    """
    require_server()
    volume_id = asset_of(name).asset_id
    found = ask("VolumeStat", VolumeStat(volume_id, to_wire(remote), version), VolumeStatted)
    fetch = _Fetch(volume_id, found.version)
    if local == "-":
        fetch.pipe(found.entry)  # whose errors are of standard output, as of every command
        return
    try:
        with Progress(f"Getting from {name}", found.entry.size) as fetch.progress:
            if found.entry.kind == DIRECTORY:
                fetch.directory(found.entry, local, is_forced=is_forced)
            else:
                fetch.single(found.entry, local, is_forced=is_forced)
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename if isinstance(error.filename, str) else local
        raise click.ClickException(
            f"cannot write {where}: {error.strerror}; get it again when that is mended"
        ) from error
    left = f"; {tables.counted(fetch.left_count, 'file')} had come before" if fetch.left_count else ""
    what = f"{tables.counted(fetch.count, 'file')}, {size_text(fetch.size_bytes)}{left}"
    click.echo(f"Finished downloading {remote} of volume {name}, version {found.version}: {what}.", err=True)


class _Fetch:
    """One command's way through a version."""

    def __init__(self, volume_id: str, version: int) -> None:
        self._volume_id = volume_id
        self._version = version
        self._reader = VolumeReader(_client.current())
        self.progress = Progress("", 0)
        self.count = 0
        self.size_bytes = 0
        """Of what came now."""
        self.left_count = 0
        """Files that were there already."""

    def pipe(self, entry: VolumeEntry) -> None:
        """One file to standard output."""
        if entry.kind == DIRECTORY:
            raise click.ClickException(f"{from_wire(entry.path)!r} is a directory; only a file can go to -")
        for data, size in iterate(self._reader.read(self._question(entry))):
            sys.stdout.buffer.write(data or bytes(size))
        sys.stdout.buffer.flush()

    def single(self, entry: VolumeEntry, local: str, *, is_forced: bool) -> None:
        """One file or link, into a directory or under another name."""
        if os.path.isdir(local) or local.endswith("/"):
            folder, name = local, _parts(entry)[-1]
        else:
            folder, name = os.path.split(local)
        check_name(name)
        with Landing(folder or ".") as landing:
            self._all(landing, [((name,), entry)], is_forced=is_forced)

    def directory(self, top: VolumeEntry, local: str, *, is_forced: bool) -> None:
        """All that is in a directory."""
        if os.path.lexists(local) and not os.path.isdir(local):
            raise click.ClickException(f"{local} is no directory, and {from_wire(top.path)!r} is one")
        with Landing(local) as landing:
            self._all(landing, self._below(top), is_forced=is_forced)

    def _below(self, top: VolumeEntry) -> Iterator[Found]:
        """What is in a directory, each with its names from there on."""
        above = _parts(top)
        wanted = VolumeList(self._volume_id, top.path, is_deep=True, version=self._version, has_blocks=True)
        for page in ask_pages("VolumeList", wanted, VolumeListing):
            for entry in page.entries:
                parts = _parts(entry)
                if parts[: len(above)] != above or len(parts) == len(above):
                    raise click.ClickException(f"the volume lists {entry.path!r} in {top.path!r}")
                yield parts[len(above) :], entry

    def _all(self, landing: Landing, entries: Iterable[Found], *, is_forced: bool) -> None:
        wanted = self._wanted(landing, entries, is_forced=is_forced)
        questions = ((self._question(entry), _known(entry), (parts, entry)) for parts, entry in wanted)
        for asked, page, (parts, entry) in iterate(self._reader.first_pages(questions)):
            self._file(landing, parts, entry, asked, page)

    def _wanted(self, landing: Landing, entries: Iterable[Found], *, is_forced: bool) -> Iterator[Found]:
        """The files among them that are to be read; the rest is made, or left alone, on the way."""
        for parts, entry in entries:
            if entry.kind == DIRECTORY:
                landing.folder(parts, entry)
                continue
            folder, name = landing.folder(parts[:-1]), parts[-1]
            check_name(name)
            target = from_wire(entry.target)
            is_link = entry.kind == SYMLINK
            if is_same_link(folder, name, target) if is_link else is_there(folder, name, entry):
                self.left_count += 1
                self.progress.skip(entry.size)
                continue
            check_free(folder, name, landing.shown(name), is_forced=is_forced)
            if not is_link:
                yield parts, entry
                continue
            if not target or "\0" in target:
                raise click.ClickException(f"{landing.shown(name)}: the volume has a link to nothing there")
            put_link(folder, name, target)
            self.count += 1

    def _file(
        self, landing: Landing, parts: Sequence[str], entry: VolumeEntry, asked: VolumeBlocksGet, page: VolumeBlocks
    ) -> None:
        folder, name = landing.folder(parts[:-1]), parts[-1]
        with landed(folder, name, entry, page, _following(asked, page)) as file:
            skipped = file.whole_blocks
            self.progress.skip(min(entry.size, skipped * BLOCK_BYTES))
            if skipped > len(page.blocks):
                asked, skipped = replace(asked, version=page.version, first=skipped), 0
                page = ask("VolumeBlocksGet", asked, VolumeBlocks)
            for data, size in iterate(self._reader.read_from(asked, page, skipped)):
                file.add(data, size)
                self.progress.add(size)
                self.size_bytes += size
        self.count += 1

    def _question(self, entry: VolumeEntry) -> VolumeBlocksGet:
        return VolumeBlocksGet(self._volume_id, entry.path, self._version)


def _following(asked: VolumeBlocksGet, page: VolumeBlocks) -> Iterator[VolumeBlocks]:
    """The pages of a file's blocks after the first one."""
    following = asked.following(page)
    while following is not None:
        page = ask("VolumeBlocksGet", following, VolumeBlocks)
        yield page
        following = following.following(page)


def _known(entry: VolumeEntry) -> VolumeBlocks | None:
    """Where the content of a file is, where its entry says that."""
    if entry.size and not entry.block:
        return None  # a hole, or more than one block
    return VolumeBlocks(entry.size, (entry.block,) if entry.size else (), entry.offset)


def _parts(entry: VolumeEntry) -> list[str]:
    return [part for part in from_wire(entry.path).split("/") if part]
