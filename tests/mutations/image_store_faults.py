"""Mutations of what the removal of garbage from a store of layers promises: nothing goes that anybody needs."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

PUT = "src/squall/agent/image/block/put.py"
SWEEP = "src/squall/agent/image/block/sweep.py"
TURN = "src/squall/agent/image/block/turn.py"
ON_SERVER = "src/squall/server/dispatch/image/store.py"
STORED = "tests/agent/image/block/test_stored.py::"
SWEEPS = "tests/agent/image/block/test_sweep.py::"
TURNS = "tests/agent/image/block/test_turn.py::"
SERVERS = "tests/server/dispatch/image/test_store.py::"

IMAGE_STORE_FAULTS = (
    Mutation(
        "store-needed",
        "the store keeps what is needed",
        "only the time of use counts",
        (Change(SWEEP, "image_id in self._needed or now - used_at", "now - used_at"),),
        {f"{SWEEPS}test_image_that_nothing_needs_goes_and_its_layers_a_grace_later[folder]": "first.images.removed"},
    ),
    Mutation(
        "store-noted",
        "the store keeps what another server needs",
        "notes of use count for nothing",
        (Change(SWEEP, "used_at = max(found.modified_at, used.get(image_id, 0.0))", "used_at = found.modified_at"),),
        {f"{SWEEPS}test_image_that_another_server_has_noted_as_used_stays": "stayed.images.removed"},
    ),
    Mutation(
        "store-young",
        "the store keeps what is young",
        "blocks go at any age",
        (Change(SWEEP, "if now - found.modified_at >= GRACE_S and bytes.", "if bytes."),),
        {f"{SWEEPS}test_what_is_young_stays[folder]": "keys(store) == there"},
    ),
    Mutation(
        "store-removed",
        "layers of a removed image stay for a while",
        "its manifest is not kept",
        (Change(SWEEP, "        self._store.keep_removed(manifest)\n", ""),),
        {f"{SWEEPS}test_layers_of_a_removed_image_stay_for_those_who_fetch_it": "is_whole(folder, image)"},
    ),
    Mutation(
        "store-replaced",
        "layers of a replaced image stay for a while",
        "its manifest is not kept",
        (Change(PUT, "            self._store.keep_removed(replaced)\n", "            pass\n"),),
        {f"{SWEEPS}test_replaced_image_keeps_its_layers_for_those_who_fetch_it": "is_whole(folder, before)"},
    ),
    Mutation(
        "store-order",
        "a sweep that is killed leaves nothing that names what is gone",
        "blocks go before the layers that name them",
        (
            Change(
                SWEEP,
                "            blocks.update(of_layer)\n",
                "            blocks.update(of_layer)\n        self._blocks(blocks, now)\n",
            ),
        ),
        {
            f"{SWEEPS}test_sweep_that_ends_anywhere_leaves_nothing_that_names_what_is_gone[killed]": (
                "assert keys(store, BLOCKS) >="
            )
        },
    ),
    Mutation(
        "store-writer-waits",
        "a block that is used again survives",
        "images are put while garbage is removed",
        (Change(TURN, "            if sweeps:\n", "            if ():\n"),),
        {f"{SWEEPS}test_image_put_while_garbage_is_removed_waits_and_is_whole": "assert refusals"},
    ),
    Mutation(
        "store-sweep-waits",
        "a block that is used again survives",
        "garbage is removed while an image is put",
        (Change(TURN, "if not others or self._kind == PUT:", "if not sweeps:"),),
        {f"{SWEEPS}test_removal_waits_for_an_image_that_is_being_put": "assert swept.images.count == 1"},
    ),
    Mutation(
        "store-file-server",
        "a block that is used again survives",
        "on a file server the sweep looks before others can have seen it",
        (Change(TURN, "if self._kind == SWEEP and self._store.settle_s:", "if ():"),),
        {f"{TURNS}test_on_a_file_server_removal_looks_when_others_have_seen_its_mark": ("pytest.raises(NotNow, match")},
    ),
    Mutation(
        "store-lost-turn",
        "who was stopped for long removes nothing",
        "the turn is not looked at",
        (Change(SWEEP, "        self._turn.check()\n", ""),),
        {f"{SWEEPS}test_sweep_that_was_stopped_for_long_removes_nothing": "pytest.raises(NotNow"},
    ),
    Mutation(
        "store-lost-turn-again",
        "who was stopped for long removes nothing",
        "a turn that was lost comes back",
        (Change(TURN, "        self._check(asked_s)\n", ""),),
        {f"{TURNS}test_turn_that_was_lost_stays_lost": "assert not turn._thread.is_alive()"},
    ),
    Mutation(
        "store-dry-run",
        "a dry run removes nothing",
        "it removes",
        (Change(SWEEP, "if keys and not self._is_dry_run:", "if keys:"),),
        {f"{SWEEPS}test_dry_run_tells_the_same_and_removes_nothing[folder]": "keys(store) == there"},
    ),
    Mutation(
        "store-later-version",
        "what is not understood keeps what it could name",
        "the version of an image is not looked at",
        (
            Change(
                "src/squall/agent/image/block/manifest.py",
                '        if values["version"] != _VERSION:\n',
                '        if not values["version"]:\n',
            ),
        ),
        {f"{SWEEPS}test_image_of_a_later_version_ends_it": "pytest.raises(BlockError"},
    ),
    Mutation(
        "store-old-block",
        "an old block is put again",
        "it counts as there",
        (Change("src/squall/agent/image/block/store.py", " and age_s < REFRESH_S", " and age_s == age_s"),),
        {f"{STORED}test_old_blocks_and_manifests_are_put_again": "st_mtime == 1"},
    ),
    Mutation(
        "store-old-node",
        "no garbage is removed while a node of an earlier version is there",
        "it is",
        (Change(ON_SERVER, "error.code == INVALID", "error.code == UNAVAILABLE"),),
        {f"{SERVERS}test_nothing_is_removed_while_a_node_of_an_earlier_version_is_there": "pytest.raises("},
    ),
    Mutation(
        "store-taken-from",
        "the store keeps what is needed",
        "images that needed ones begin with or copy from go",
        (Change(ON_SERVER, "            new = taken - found\n", "            new = set[str]()\n"),),
        {
            f"{SERVERS}test_images_of_apps_names_and_late_use_stay_with_those_that_they_take_from": (
                "[one.needed for one in node.removals]"
            )
        },
    ),
)
