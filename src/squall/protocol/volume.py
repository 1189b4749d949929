"""Volumes: trees of files, each state of which is a version that stays.

Paths are text. What is no UTF-8 in a name travels byte by byte, each as a NUL and two hexadecimal digits: no name has a
NUL of its own (`to_wire`, `from_wire`). Contents travel as blobs, one for each block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from squall.protocol.records import record, replace

BLOCK_BYTES = 8 * 2**20
"""Of a file, but for its last block; small files share one."""
HOLE = ""
"""In the place of a block's SHA-256: as many zeros as it would have bytes."""

NO_LIMIT = 2**53
"""Of entries: more than any volume has. Numbers above are none in JSON."""

FILE, DIRECTORY, SYMLINK = "file", "directory", "symlink"

PUT, REMOVE, REMOVE_SEEN, REMOVE_EMPTY = "put", "remove", "remove_seen", "remove_empty"
COPY, TOUCH = "copy", "touch"
"""What is done at a path: put an entry there; take away what is there; take away what is there of what the version had
that the changes were made in, at that path or at another one; take away a directory with nothing in it; put there what
that version has somewhere else; the same of a file, with another mode, time and owner.

Where that version is not kept any more, nobody knows what it had: nothing is taken away for its sake, and what is put
there is that of the newest version."""

COMMIT_CHANGES_MAX = 1_000_000
"""Of one commit."""
PATH_BYTES_MAX, NAME_BYTES_MAX, DEPTH_MAX = 4_096, 255, 256
"""Of what is in a volume: bytes of a path and of a name, and names in a path."""
ENTRIES_MAX, BYTES_MAX = 10_000_000, 2**60
"""Of a version: paths, and bytes of all its files, holes included."""
RESERVED = ".squall-contents"
"""No version has this at its top: below it lie contents where versions are mounted."""
FILE_BYTES_MAX = 2**44
"""Of a file, holes included: as much as ext4 has."""
BLOCK_LIST_BYTES_MAX = 7 * 2**20
"""Of the names of a file's blocks as they travel, all of them in one frame: 67 bytes for each, and 3 for a hole."""
TOO_MANY_BLOCKS = "a file has about 900 GB of content at most, what is holes not counted"

_SURROGATES = re.compile("[\udc80-\udcff]")
_BYTES = re.compile("\0([0-9a-f]{2})")


def to_wire(path: str) -> str:
    """A path of Python's as it travels."""
    return _SURROGATES.sub(lambda found: f"\0{ord(found[0]) - 0xDC00:02x}", path)


def from_wire(text: str) -> str:
    """The other way round."""
    return _BYTES.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text)


def block_list_bytes(blocks: Iterable[str]) -> int:
    """What these names of blocks take of `BLOCK_LIST_BYTES_MAX`."""
    return sum(len(block) + 3 for block in blocks)


@record
class VolumeEntry:
    """What is at a path."""

    path: str
    kind: str
    mode: int = 0
    """Permission bits."""
    mtime_ns: int = 0
    """Since 1970."""
    size: int = 0
    """Bytes of a file; of a directory, those of all files below."""
    uid: int = 0
    gid: int = 0
    target: str = ""
    """Of a symbolic link."""
    entry_count: int = 0
    """Of a directory: how many entries are below."""
    block: str = HOLE
    """Of a file of one block, where that was asked for."""
    offset: int = 0
    """Where in that block it begins."""


@record
class VolumeChange:
    """One change of a commit; changes are made in their order."""

    path: str
    action: str = PUT
    kind: str = FILE
    mode: int = 0o644
    mtime_ns: int = 0
    size: int = 0
    uid: int = 0
    gid: int = 0
    blocks: tuple[str, ...] = ()
    """Of a file, the SHA-256 of each of its blocks, in order."""
    offset: int = 0
    """Where in its only block the file begins."""
    target: str = ""
    """Of a symbolic link; of what is copied, touched or removed as seen, its path in the version that the changes were
    made in."""
    block_list: str = ""
    """Of a tree that is read: in place of very many blocks, what their list is called; `VolumeBlocksGet` tells them."""


@record
class VolumeCommit:
    """Make changes to a volume: its next version, if they change anything. The caller makes the id of the commit, so
    repeating is harmless. Many changes come in pages, in order; they are made with the last one, all of them or none.

    Errors: `invalid`; `conflict`, when a path is in the way and the changes are not forced, or pages are missing;
    `exhausted`.
    """

    volume_id: str
    commit_id: str
    """One of a request, `rq-…`."""
    changes: tuple[VolumeChange, ...] = ()
    page: int = 0
    """From 0."""
    is_last: bool = True
    version: int | None = None
    """That the changes were made in; None for the newest."""
    is_forced: bool = True
    """A file may come in the place of a directory, and the other way round."""
    is_replacing: bool = True
    """A file may come in the place of another one; else that is an error, `exists`."""
    cause: str = ""
    """Where the changes come from, as the history shows it."""
    created_by: str = ""
    """The user of the program that makes them, likewise."""


@record
class VolumeVersion:
    """One version as it is listed."""

    number: int
    """From 1; 0 is the empty volume that each begins as."""
    created_at: float = 0.0
    """Seconds since 1970."""
    cause: str = ""
    created_by: str = ""
    entry_count: int = 0
    size: int = 0
    """Bytes of all its files."""
    put_count: int = 0
    """Paths that were put by what made it."""
    removed_count: int = 0
    root: str = ""
    """What its tree is called: equal trees have one name, in all volumes; empty of an empty one."""


@record
class VolumeCommitted:
    """The answer: what the volume is now, or what is missing for it."""

    version: VolumeVersion | None = None
    """None before the last page, and while blocks are missing."""
    missing: tuple[str, ...] = ()
    """Blocks that the store does not have: put them, and send the last page again."""


@record
class VolumeCopy:
    """Copy paths within a volume, as `cp` does. Errors as of `VolumeCommit`, and `not_found`."""

    volume_id: str
    commit_id: str
    sources: tuple[str, ...] = ()
    path: str = ""
    is_deep: bool = False
    """Directories too, with all that is in them."""
    created_by: str = ""


@record
class VolumeRemove:
    """Remove a path. Errors: `not_found`; `conflict` for a directory where it is not deep."""

    volume_id: str
    commit_id: str
    path: str = ""
    is_deep: bool = False
    created_by: str = ""


@record
class VolumeStat:
    """Ask what is at a path. Error: `not_found`."""

    volume_id: str
    path: str = ""
    version: int | None = None


@record
class VolumeStatted:
    """The answer."""

    entry: VolumeEntry
    version: int = 0
    """That it is of."""


@record
class VolumeList:
    """Ask what is in a directory, in the order of names; of a file, for itself. Error: `not_found`."""

    volume_id: str
    path: str = ""
    is_deep: bool = False
    version: int | None = None
    limit: int = NO_LIMIT
    after: str = ""
    """The last path of the page before."""
    has_blocks: bool = False
    """Also where files of one block are: nobody asks for each of 50,000 small ones then."""

    def following(self, listing: VolumeListing) -> VolumeList | None:
        """The question for the next page, of the same version."""
        if not listing.is_cut or not listing.entries or listing.entries[-1].path == self.after:
            return None
        left = max(0, self.limit - len(listing.entries))
        return replace(self, version=listing.version, after=listing.entries[-1].path, limit=left)


@record
class VolumeListing:
    """The answer: a page of it."""

    entries: tuple[VolumeEntry, ...]
    version: int = 0
    is_cut: bool = False


@record
class VolumeBlocksGet:
    """Ask where the content of a file is. Errors: `not_found`; `conflict` for what is no file."""

    volume_id: str
    path: str
    version: int | None = None
    first: int = 0
    """From this block on."""

    def following(self, answer: VolumeBlocks) -> VolumeBlocksGet | None:
        """The question for the next page, of the same version."""
        if not answer.is_cut or not answer.blocks:
            return None
        return replace(self, version=answer.version, first=self.first + len(answer.blocks))


@record
class VolumeBlocks:
    """The answer: a page of it."""

    size: int
    blocks: tuple[str, ...] = ()
    offset: int = 0
    version: int = 0
    mode: int = 0
    mtime_ns: int = 0
    is_cut: bool = False


@record
class VolumeHistoryGet:
    """Ask for versions, newest first."""

    volume_id: str
    limit: int = 100
    before: int | None = None
    """Those with smaller numbers."""

    def following(self, history: VolumeHistory) -> VolumeHistoryGet | None:
        """The question for the next page."""
        if not history.is_cut or not history.versions or history.versions[-1].number == self.before:
            return None
        left = max(0, self.limit - len(history.versions))
        return replace(self, before=history.versions[-1].number, limit=left)


@record
class VolumeHistory:
    """The answer: a page of it."""

    versions: tuple[VolumeVersion, ...]
    is_cut: bool = False


@record
class VolumeVersionGet:
    """Ask for one version: by number, by time, or the newest. Error: `not_found`."""

    volume_id: str
    version: int | None = None
    at: float | None = None
    """The one that was the newest then, seconds since 1970."""


@record
class VolumeDiff:
    """Ask how two versions differ."""

    volume_id: str
    before: int
    after: int | None = None
    passed: int = 0
    """So many differences are known already."""

    def following(self, answer: VolumeDifferences) -> VolumeDiff | None:
        """The question for the next page, of the same versions."""
        if not answer.is_cut or not answer.paths:
            return None
        return replace(self, after=answer.after, passed=self.passed + len(answer.paths))


@record
class VolumeDifference:
    """One path: what was there, and what is; None for nothing."""

    before: VolumeEntry | None = None
    after: VolumeEntry | None = None


@record
class VolumeDifferences:
    """The answer: a page of it, by path."""

    paths: tuple[VolumeDifference, ...]
    after: int = 0
    is_cut: bool = False


@record
class VolumeRollback:
    """Make an earlier version the newest again, as a new version. Errors: `not_found`."""

    volume_id: str
    commit_id: str
    version: int = 0
    created_by: str = ""


@record
class VolumeTreeGet:
    """Ask for a whole tree, as a node needs it. Error: `not_found`."""

    volume_id: str
    version: int = 0
    after: str = ""
    """The last path of the page before."""

    def following(self, tree: VolumeTree) -> VolumeTreeGet | None:
        """The question for the next page."""
        if not tree.is_cut or not tree.entries:
            return None
        return replace(self, after=tree.entries[-1].path)


@record
class VolumeTree:
    """The answer: a page of what would make the tree, directories before what is in them."""

    entries: tuple[VolumeChange, ...]
    is_cut: bool = False


@record
class VolumeFlush:
    """Asked in a container: commit what it has written to a volume that it has mounted."""

    volume_id: str


@record
class VolumeReload:
    """Asked in a container: let it see the newest version. What it has written is committed before. Error: `conflict`
    while files are open."""

    volume_id: str


@record
class VolumeMount:
    """A volume of a function."""

    volume_id: str
    target: str
    """An absolute directory in the container."""
    is_read_only: bool = False
    sub_path: str = ""
    """Only this directory of it is seen."""
    version: int | None = None
    """An old one, which is read only; None: the newest, when the container starts."""
    name: str = ""
    """As it is shown."""


_TAKEN = ("/", "/dev", "/etc", "/proc", "/root", "/run/squall", "/sys", "/tmp")
"""Nothing is mounted there: what a container needs is there itself, or is hidden from it."""
_BELOW_TAKEN = ("/dev/", "/proc/", "/run/squall/", "/sys/")


def target_problem(target: str, what: str) -> str:
    """Why something cannot be mounted at a path; empty when it can."""
    if not target.startswith("/") or len(target) > 1_000 or "\0" in target or ".." in target.split("/"):
        return f"{what} is mounted at an absolute path without '..', and {target[:200]!r} is none"
    if target in _TAKEN or target.startswith(_BELOW_TAKEN):
        return f"{what} cannot be mounted at {target}, which containers need; choose a directory of its own"
    return ""


def mount_problem(mounts: Sequence[VolumeMount]) -> str:
    """What is wrong with where volumes of one function are to be; empty when nothing is."""
    targets: set[str] = set()
    volume_ids: set[str] = set()
    for mount in mounts:
        target = mount.target
        if problem := target_problem(target, "a volume"):
            return problem
        if target in targets:
            return f"two volumes are to be mounted at {target}"
        if mount.volume_id in volume_ids:
            return f"one volume is to be mounted twice, the second time at {target}"
        targets.add(target)
        volume_ids.add(mount.volume_id)
    return ""


@record
class VolumeStart:
    """A volume of a container that is to start."""

    mount: VolumeMount
    version: int = 0
    """Which one it has at first."""
    root: str = ""
    """What the tree of that is called; equal trees have one name."""


@record
class NodeVolumesFetch:
    """Asked of a node: have all of these versions there, however long that takes. A container that is started with them
    then waits for nothing. Events say how far it is, the last one that it is done. Errors: `exhausted`, `not_found`."""

    volumes: tuple[VolumeStart, ...] = ()


@record
class VolumesFetched:
    """How far it is: of what was missing."""

    fetched_bytes: int = 0
    wanted_bytes: int = 0
    is_done: bool = False


@record
class NodeVolumeCommit:
    """Asked of a node: commit what a container has written to a volume; see `VolumeFlush`."""

    container_id: str
    volume_id: str


@record
class NodeVolumeReload:
    """Asked of a node: see `VolumeReload`."""

    container_id: str
    volume_id: str


@record
class VolumeHeld:
    """A version that a node needs, as containers have it mounted, or have written on it what is in no commit yet."""

    volume_id: str
    version: int


@record
class NodeVolumesHeld:
    """An agent tells which versions its node needs: all of them, after its hello and whenever that changes."""

    versions: tuple[VolumeHeld, ...] = ()


@record
class VolumeRetention:
    """Which versions stay: the newest always, the `count` newest, and those of the last `days`."""

    count: int = 20
    days: float = 7.0


@record
class VolumeRetentionPut:
    """Say which versions of a volume stay; None asks what was said."""

    volume_id: str
    retention: VolumeRetention | None = None


@record
class VolumeGc:
    """Forget versions that need not stay, and remove what nothing names any more."""

    volume_id: str = ""
    """Of this volume's versions; of all volumes', when it is empty."""
    is_trial: bool = False
    """Only say what would go."""


@record
class VolumeCollected:
    """What went, or would."""

    version_count: int = 0
    node_count: int = 0
    freed_bytes: int = 0
    """Of blocks that nothing named any more."""
    unheard_count: int = 0
    """Versions that need not stay, and do: the server has not been up for an hour, and a node that has not come back
    yet may have one mounted."""


@record
class VolumeUsageGet:
    """Ask how much of the store a volume takes."""

    volume_id: str


@record
class VolumeUsage:
    """Blocks are counted once, however many files and versions have them."""

    head_bytes: int = 0
    """Of the newest version's files, as they are read."""
    stored_bytes: int = 0
    """Of all blocks of all versions."""
    own_bytes: int = 0
    """Of those blocks that no other volume has."""
    version_count: int = 0
    oldest: int = 0
