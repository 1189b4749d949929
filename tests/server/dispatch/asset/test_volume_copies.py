"""What copies may not make of a volume: paths that nobody can have, and more entries than anybody can hold."""

from __future__ import annotations

import pytest

from squall.protocol import volume as wire
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.volume import DEPTH_MAX, ENTRIES_MAX, FILE_BYTES_MAX, HOLE, VolumeChange, VolumeCommitted
from tests.server.dispatch.asset.test_volumes import commit, copied, failure_of, listed, make_volume, put_files, send
from tests.server.doubles import FakeClient, staged


async def test_a_copy_that_would_be_too_deep_is_refused_and_the_volume_stays_as_it_is() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        deep, far, long = "/".join("d" * 200), "/".join("f" * 100), "/".join(["n" * 200] * 20)
        await put_files(client, volume_id, f"a/{deep}/file", f"{far}/there", f"{long}/there", "x" * 200)
        before = await listed(client, volume_id)

        for sources, to in ((("a",), far), (("a",), f"{far}/new"), (("x" * 200,), long)):
            with pytest.raises(PlatformError, match=r"VolumeCopy: '.* names at most") as refused:
                await copied(client, volume_id, *sources, to=to, is_deep=True)
            assert refused.value.code == "invalid"
        assert await listed(client, volume_id) == before


async def test_what_a_container_moved_too_deep_is_left_out_and_all_else_of_its_commit_is_there() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        deep, far = "/".join("d" * 200), "/".join("f" * 100)
        base = (await put_files(client, volume_id, f"a/{deep}/file", "a/short", f"{far}/there")).number

        moved = VolumeChange(f"{far}/a", wire.COPY, target="a"), VolumeChange("a", wire.REMOVE_SEEN)
        other = VolumeChange("other", kind=wire.DIRECTORY)
        version = await commit(client, volume_id, *moved, other, version=base, cause="at the end")

        found = await listed(client, volume_id)
        assert {f"{far}/a/short", f"{far}/there", "other"} <= set(found)
        assert "a" not in found
        assert max(len(path.split("/")) for path in found) == DEPTH_MAX
        assert version.cause == "at the end (46 paths were left out: they would have been too long)"


async def double(client: FakeClient, volume_id: str) -> VolumeCommitted:
    """What is in `d` is in it twice then."""
    copies = [VolumeChange(f"e/{name}", wire.COPY, target="d") for name in "ab"]
    await commit(client, volume_id, *copies)
    return await send(
        client,
        volume_id,
        VolumeChange("d", wire.REMOVE),
        VolumeChange("d", wire.COPY, target="e"),
        VolumeChange("e", wire.REMOVE),
    )


async def test_copies_of_copies_end_where_a_volume_has_as_much_as_it_may_have() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "d/file")
        for _ in range(21):
            await double(client, volume_id)
        head = await client.ask("VolumeVersionGet", wire.VolumeVersionGet(volume_id), wire.VolumeVersion)
        assert ENTRIES_MAX // 2 < head.entry_count <= ENTRIES_MAX

        for _ in range(2):
            with pytest.raises(PlatformError, match="10,000,000 it may have") as refused:
                await copied(client, volume_id, "d", to="twice", is_deep=True)
            assert refused.value.code == "exhausted"
        emptied = wire.VolumeRemove(volume_id, new_id("rq"), "d", is_deep=True)
        empty = (await client.ask("VolumeRemove", emptied, VolumeCommitted)).version
        assert (empty.entry_count, empty.removed_count) == (0, head.entry_count)
        rollback = wire.VolumeRollback(volume_id, new_id("rq"), head.number)
        back = (await client.ask("VolumeRollback", rollback, VolumeCommitted)).version
        assert (back.entry_count, back.put_count) == (head.entry_count, head.entry_count)


async def test_files_of_holes_are_bounded_by_what_they_seem_to_have() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        count = FILE_BYTES_MAX // 2**4 // wire.BLOCK_BYTES
        await commit(client, volume_id, VolumeChange("d/f", size=count * wire.BLOCK_BYTES, blocks=(HOLE,) * count))
        for _ in range(19):
            await double(client, volume_id)

        refused = await failure_of(double(client, volume_id))

        assert refused.code == "exhausted"
        assert "bytes of files" in refused.message


async def test_a_file_is_refused_that_has_more_content_than_a_commit_can_name() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        most = wire.BLOCK_LIST_BYTES_MAX // wire.block_list_bytes(("0" * 64,))
        blocks = ("0" * 64,) * most
        record = wire.VolumeCommit(
            volume_id, new_id("rq"), (VolumeChange("f", size=most * wire.BLOCK_BYTES, blocks=blocks),)
        )
        answer = await client.ask("VolumeCommit", record, VolumeCommitted)
        assert answer.missing == ("0" * 64,)

        over = VolumeChange("d/f", size=(most + 1) * wire.BLOCK_BYTES, blocks=(*blocks, "0" * 64))
        refused = await failure_of(commit(client, volume_id, over))
        assert refused.code == "invalid"
        assert "'d/f': a file has about 900 GB of content at most" in refused.message
        count = FILE_BYTES_MAX // wire.BLOCK_BYTES
        await commit(client, volume_id, VolumeChange("holes", size=FILE_BYTES_MAX, blocks=(HOLE,) * count))
