"""Mutations of volumes as programs and the command use them: damaged blocks, files that change, hostile names."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SDK = "tests/sdk/test_volume.py::"
LANDING = "tests/cli/test_landing.py::"
COPIES = "tests/server/dispatch/asset/test_volume_copies.py::"
STAGING = "tests/server/dispatch/asset/test_volume_staging.py::"
COMMAND = "tests/cli/test_volume.py::"
READER = "src/squall/sdk/_volume_reader.py"
CONTENT = "src/squall/sdk/_volume_content.py"
LAND = "src/squall/cli/landing.py"

VOLUME_CLIENT_FAULTS = (
    Mutation(
        "blob-told-goes",
        "blob store tidies up in the middle of a commit",
        "what a client was told is there goes a moment later",
        (Change("src/squall/server/store/blob.py", "            self._told[name] = now\n", "            pass\n"),),
        {
            "tests/conformance/test_blobs.py::test_eviction_spares_what_somebody_was_told_of[folder]": (
                "evict(0, frozenset()) == 600"
            )
        },
    ),
    Mutation(
        "block-told-is-garbage",
        "garbage is collected in the middle of an upload",
        "what a client was told is there goes a moment later, because no version has it any more",
        (
            Change(
                "src/squall/server/store/blob.py",
                '            if self._relied_on.get(bytes.fromhex(key.rpartition("/")[2]), newest) > newest:',
                "            if False:",
            ),
        ),
        {
            "tests/conformance/test_blobs.py::"
            "test_what_nobody_was_told_of_is_deleted_at_once_and_the_rest_a_day_later[folder]": (
                "== [False, False, True]"
            )
        },
    ),
    Mutation(
        "volume-copy-too-deep",
        "copies of copies",
        "a copy makes paths that nobody can list or mount",
        (
            Change(
                "src/squall/server/volume/graft.py",
                "if not _fits(self._extent(found.node), room):",
                "if False:",
            ),
        ),
        {
            f"{COPIES}test_a_copy_that_would_be_too_deep_is_refused_and_the_volume_stays_as_it_is": ("names at most"),
            f"{COPIES}test_what_a_container_moved_too_deep_is_left_out_and_all_else_of_its_commit_is_there": (
                "== DEPTH_MAX"
            ),
        },
    ),
    Mutation(
        "volume-copies-unbounded",
        "copies of copies",
        "twenty copies of copies make a volume that fills the memory of whoever mounts it",
        (
            Change(
                "src/squall/server/dispatch/asset/volume_changes.py",
                "        if is_now > max(was, most):",
                "        if False:",
            ),
        ),
        {f"{COPIES}test_copies_of_copies_end_where_a_volume_has_as_much_as_it_may_have": "10,000,000"},
    ),
    Mutation(
        "volume-pages-keep-others-out",
        "commits that are never ended",
        "whoever begins commits and ends none keeps all others from committing in pages",
        (
            Change(
                "src/squall/server/dispatch/asset/volume_staging.py",
                "else taken.most_common(1)[0][0]",
                "else share",
            ),
        ),
        {f"{STAGING}test_whoever_has_most_under_way_makes_room_for_others": "for one in ours"},
    ),
    Mutation(
        "volume-pages-uncounted",
        "commits that are never ended",
        "pages of long paths fill the server's memory: changes are counted, and not what they take",
        (
            Change(
                "src/squall/server/dispatch/asset/volume_staging.py",
                "            if staged.size_bytes + size_bytes > SHARE_BYTES_MAX:",
                "            if False:",
            ),
        ),
        {
            f"{STAGING}test_a_commit_has_so_many_changes_and_takes_so_much_memory": (
                '"MiB of memory" in refused.message'
            )
        },
    ),
    Mutation(
        "volume-block-unchecked",
        "bad block on disk",
        "what comes of a block is handed out unseen",
        (Change(READER, "if len(data) != size or sha256_hex(data) != block:", "if len(data) != size:"),),
        {f"{SDK}test_a_damaged_block_is_named_and_never_handed_out": "pytest.raises(DataLossError, match=sha256)"},
    ),
    Mutation(
        "volume-block-stays-damaged",
        "bad block on disk",
        "a damaged block is there: the same file put again is not sent",
        (
            Change(
                READER,
                'await self._client.request("BlobStat", BlobStat((block,), is_doubted=True), BlobMissing)',
                'await self._client.request("BlobStat", BlobStat((block,)), BlobMissing)',
            ),
        ),
        {f"{SDK}test_a_damaged_block_is_named_and_never_handed_out": "not in the store"},
    ),
    Mutation(
        "volume-file-half-old",
        "file written while it is put",
        "a small file is put as it was read, whatever became of it meanwhile",
        (
            Change(
                CONTENT, "            _check_unchanged(fd, file.path, status)\n            await", "            await"
            ),
        ),
        {f"{SDK}test_a_file_that_changes_meanwhile_puts_nothing[1000]": "was changed while it was put"},
    ),
    Mutation(
        "volume-pipe-empty",
        "pipe is put",
        "what has no size is put as an empty file",
        (
            Change(
                CONTENT,
                "if not stat.S_ISREG(status.st_mode) or (not status.st_size and os.pread(fd, 1, 0)):",
                "if stat.S_ISCHR(status.st_mode):",
            ),
        ),
        {f"{SDK}test_streams_of_unknown_length": 'read(volume, "pipe") == data'},
    ),
    Mutation(
        "volume-get-follows-links",
        "path escapes",
        "a link in the way of what is got is followed",
        (Change(LAND, "os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC", "os.O_DIRECTORY | os.O_CLOEXEC"),),
        {f"{LANDING}test_links_in_the_way_are_not_followed[..]": 'match="is no directory"'},
    ),
    Mutation(
        "volume-get-upwards",
        "path escapes",
        "a volume's names are taken as they come",
        (Change(LAND, 'name not in ("", ".", "..")', 'name != ""'),),
        {f"{LANDING}test_names_that_are_none_are_refused[..]": 'match="no file can have"'},
    ),
    Mutation(
        "volume-get-trusts-half",
        "machine dies while a file is got",
        "what came of a file before is right",
        (Change(LAND, "count == whole or not _is_right(fd, count * BLOCK_BYTES, block)", "count == whole"),),
        {f"{COMMAND}test_half_a_file_that_is_wrong_is_not_kept": "read_bytes() == wanted"},
    ),
    Mutation(
        "volume-get-set-user-id",
        "hostile volume",
        "a file that is got keeps its set-user-id",
        (Change(LAND, "os.fchmod(fd, mode & PERMISSIONS)", "os.fchmod(fd, mode)"),),
        {f"{LANDING}test_no_file_gets_another_users_rights": '"0o755", ENTRY.mtime_ns'},
    ),
)
