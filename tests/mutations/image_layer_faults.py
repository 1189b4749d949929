"""Mutations of what a layer keeps of the files it is made of, and of how it comes from a store."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

CHAIN = "tests/agent/image/layer/test_chain.py::"
DEEP = "tests/kernel/test_deep_chains.py::"
EROFS = "tests/kernel/test_erofs.py::"
LAZY = "tests/kernel/test_lazy_start.py::"
SHELL = "tests/agent/test_shell.py::"
STORED = "tests/agent/image/block/test_stored.py::"
UNPACK = "tests/agent/image/oci/test_unpack.py::"
WRITER = "tests/erofs/test_writer.py::"

IMAGE_LAYER_FAULTS = (
    Mutation(
        "layer-same-bytes",
        "packing twice gives the same bytes",
        "names are taken in the order of the directory",
        (
            Change(
                "src/squall/erofs/tree.py",
                "return sorted((os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found)",
                "return [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]",
            ),
        ),
        {f"{WRITER}test_names_may_be_listed_in_any_order": "assert second == first"},
    ),
    Mutation(
        "layer-build-time",
        "packing twice gives the same bytes",
        "the superblock has a time of making",
        (
            Change(
                "src/squall/erofs/layout.py",
                "        superblock.root,\n        superblock.inodes,\n        0,\n",
                "        superblock.root,\n        superblock.inodes,\n        1,\n",
            ),
        ),
        {f"{WRITER}test_one_tree_gives_the_same_bytes_wherever_and_whenever_it_is_made": "build_time == 0"},
    ),
    Mutation(
        "layer-mtime",
        "modification times kept",
        "whole seconds are kept",
        (
            Change(
                "src/squall/erofs/layout.py",
                "        nanoseconds,\n        inode.links,",
                "        0,\n        inode.links,",
            ),
        ),
        {
            f"{WRITER}test_everything_comes_out_as_it_went_in": 'facts(tmp_path / "tree")',
            f"{WRITER}test_a_time_more_or_less_is_another_image": '"second") != first',
        },
    ),
    Mutation(
        "layer-whiteout",
        "whiteouts kept",
        "a name that hides one below is left out",
        (
            Change(
                "src/squall/erofs/tree.py",
                "                for name, status in _entries(descriptor):\n",
                "                for name, status in _entries(descriptor):\n"
                "                    if stat.S_ISCHR(status.st_mode) and not status.st_rdev:\n"
                "                        continue\n",
            ),
        ),
        {
            f"{EROFS}test_a_layer_changes_what_is_below_it_as_it_did_when_it_was_made[file]": "assert after == before",
            f"{EROFS}test_a_layer_changes_what_is_below_it_as_it_did_when_it_was_made[loop]": "assert after == before",
        },
    ),
    Mutation(
        "layer-whiteout-oci",
        "whiteouts of OCI",
        "an upper layer hides nothing",
        (
            Change(
                "src/squall/agent/image/oci/unpack.py",
                "            self._hide(names[:-1], name)\n            return\n",
                "            return\n",
            ),
        ),
        {f"{UNPACK}test_upper_layer_replaces_and_hides": "files_below(root) == {"},
    ),
    Mutation(
        "layer-opaque",
        "opaque directories kept",
        "marks of overlayfs are left out, as those of the machine are",
        (
            Change(
                "src/squall/erofs/tree.py",
                "_KEPT_OVERLAY_MARKS = (OPAQUE, REDIRECT)",
                "_KEPT_OVERLAY_MARKS = (REDIRECT,)",
            ),
        ),
        {f"{EROFS}test_marks_of_the_machine_are_left_out_and_those_of_the_layer_stay": 'shown[b"hidden"][7] == {'},
    ),
    Mutation(
        "layer-hard-link",
        "hard links kept",
        "each name is a file of its own",
        (
            Change(
                "src/squall/erofs/tree.py",
                "has_several_names = kind != stat.S_IFDIR and status.st_nlink > 1",
                "has_several_names = False",
            ),
        ),
        {f"{WRITER}test_names_of_one_file_stay_names_of_one_file": ".samefile("},
    ),
    Mutation(
        "layer-xattrs",
        "xattrs kept",
        "an attribute with an empty value is left out",
        (
            Change(
                "src/squall/erofs/tree.py",
                "if is_kept and layout.is_storable(name):",
                "if is_kept and layout.is_storable(name) and os.getxattr(place, name, follow_symlinks=False):",
            ),
        ),
        {f"{WRITER}test_extended_attributes_are_kept_and_those_of_the_machine_are_not": "facts(out) == facts(tree)"},
    ),
    Mutation(
        "layer-capabilities",
        "capabilities kept",
        "attributes of the kernel are taken for the machine's",
        (Change("src/squall/erofs/tree.py", '(b"security.selinux", ', '(b"security.", b"security.selinux", '),),
        {f"{EROFS}test_kernel_shows_what_was_packed[file]": 'shown == facts(data_dir / "tree")'},
    ),
    Mutation(
        "layer-holes",
        "holes kept",
        "zeros are stored for them",
        (
            Change(
                "src/squall/erofs/tree.py",
                "            if status.st_blocks * 512 < status.st_size:\n",
                "            if status.st_blocks * 512 < status.st_size and status.st_size > 2**30:\n",
            ),
        ),
        {f"{WRITER}test_image_of_a_file_with_holes_is_as_small_as_its_data": "assert size <= 5 * BLOCK"},
    ),
    Mutation(
        "layer-holes-unpacked",
        "holes kept",
        "they are written out where images are unpacked",
        (
            Change(
                "src/squall/erofs/unpack.py",
                "            os.ftruncate(descriptor, size)\n",
                "            os.posix_fallocate(descriptor, 0, max(1, min(size, 2**26)))\n"
                "            os.ftruncate(descriptor, size)\n",
            ),
        ),
        {f"{WRITER}test_image_of_a_file_with_holes_is_as_small_as_its_data": ".st_blocks * 512 <= 2 * BLOCK"},
    ),
    Mutation(
        "layer-changed",
        "file changed while packing",
        "what it has grown by is left out without a word",
        (
            Change(
                "src/squall/erofs/writer.py",
                "        if contents.size != one.size:\n            raise self._changed(one)\n",
                "",
            ),
        ),
        {f"{WRITER}test_a_file_that_grows_while_it_is_packed_is_refused[500000]": "pytest.raises(PackError"},
    ),
    Mutation(
        "layer-chain-limit",
        "chain merge beyond the limit",
        "a chain is merged when it is much deeper",
        (
            Change(
                "src/squall/agent/image/layer/chain.py",
                "    if len(layers) <= DEPTH_MAX:\n",
                "    if len(layers) <= 8 * DEPTH_MAX:\n",
            ),
        ),
        {
            f"{CHAIN}test_no_chain_is_deeper_than_the_kernel_stacks": "<= 500",
            f"{CHAIN}test_whole_groups_above_the_base_are_merged_once_a_chain_is_deep": "== [chain.GROUP] * 3",
        },
    ),
    Mutation(
        "layer-chain-opaque",
        "chain merge beyond the limit",
        "what a merged directory hides of the layers below shines through",
        (
            Change(
                "src/squall/erofs/merge.py",
                "        if not is_open and parent.is_open:\n",
                "        if not is_open and not parent.is_open:\n",
            ),
        ),
        {f"{DEEP}test_redirects_opaque_directories_and_whiteouts_are_merged_into_marks": 'found[b"fresh"][7] == {'},
    ),
    Mutation(
        "layer-chain-whiteout",
        "chain merge beyond the limit",
        "a whiteout of a merged layer counts in it alone",
        (
            Change(
                "src/squall/erofs/merge.py",
                "            if _is_whiteout(top) and not parent.is_open:\n",
                "            if _is_whiteout(top):\n",
            ),
        ),
        {f"{DEEP}test_merged_layers_show_what_those_they_stand_for_show[directory-2]": "assert after == before"},
    ),
    Mutation(
        "layer-wrong-digest",
        "wrong digest never used",
        "an archive of a registry is what it is called",
        (Change("src/squall/agent/image/oci/unpack.py", "        if found != digest:\n", "        if not found:\n"),),
        {f"{UNPACK}test_wrong_digest_is_refused": "pytest.raises("},
    ),
    Mutation(
        "layer-damaged-block",
        "damaged block never used",
        "what comes of a block is taken for it",
        (
            Change(
                "src/squall/agent/image/block/partial.py",
                "if hashlib.sha256(view[at : at + PART_BYTES]).digest() != self",
                "if not view[at : at + PART_BYTES] and self",
            ),
        ),
        {
            f"{STORED}test_a_bad_block_is_an_error_that_names_it_and_nothing_of_it_is_used[wrong]": (
                "pytest.raises(BlockError)"
            ),
        },
    ),
    Mutation(
        "layer-damaged-left",
        "damaged block never used",
        "what an earlier process has left is not looked at again",
        (
            Change(
                "src/squall/agent/image/block/partial.py",
                "        if hashlib.sha256(data).digest() == self.manifest.part_digest(part):\n",
                "        if data:\n",
            ),
        ),
        {f"{STORED}test_what_came_before_is_not_fetched_again": "fetched == PART_BYTES"},
    ),
    Mutation(
        "layer-damaged-manifest",
        "damaged block never used",
        "the manifest of a layer is what it is called",
        (
            Change(
                "src/squall/agent/image/block/store.py",
                "            if hashlib.sha256(data).hexdigest() != digest:\n",
                "            if not data:\n",
            ),
        ),
        {f"{STORED}test_a_damaged_manifest_is_refused[layers]": "pytest.raises(BlockError"},
    ),
    Mutation(
        "layer-known-block",
        "blocks known are not sent again",
        "every block is put",
        (
            Change(
                "src/squall/agent/image/block/put.py",
                " and not self._store.has_block(digest, size)",
                "",
            ),
        ),
        {f"{STORED}test_only_blocks_that_the_store_lacks_are_put": "kept.stat().st_mtime == lately"},
    ),
    Mutation(
        "layer-lazy-retry",
        "lazy reads retried",
        "a store is asked once",
        (
            Change(
                "src/squall/agent/image/block/store.py",
                "                if attempt == self._patience.attempts:\n",
                "                if attempt:\n",
            ),
        ),
        {
            f"{STORED}test_a_bad_block_is_an_error_that_names_it_and_nothing_of_it_is_used[wrong]": (
                'said.endswith("(attempt 2)")'
            ),
        },
    ),
    Mutation(
        "layer-lazy-eio",
        "lazy reads: EIO after retries",
        "what cannot be had is read as zeros",
        (
            Change(
                "src/squall/agent/image/block/daemon.py",
                "        raise mfusepy.FuseOSError(errno.EIO)\n",
                "        return bytes(size)\n",
            ),
        ),
        {
            f"{LAZY}test_a_dead_store_is_an_error_of_reading_after_retries_and_of_nothing_else": (
                'ended.stdout == "up\\nInput/output error\\n"'
            ),
        },
    ),
    Mutation(
        "layer-lazy-daemon",
        "the daemon's death never hangs a container",
        "a daemon that does not answer is left alone",
        (
            Change(
                "src/squall/agent/image/block/lazy.py",
                "                self._kill()\n                self._disconnect()\n",
                "",
            ),
        ),
        {
            f"{LAZY}test_a_daemon_that_dies_or_hangs_is_an_error_of_reading_and_another_one_goes_on[stopped]": (
                'assert has_ended, "the container hangs"'
            ),
        },
    ),
    Mutation(
        "shell-stored-image",
        "a shell before a step has what is below it",
        "an image that the steps name is not brought from the store",
        (
            Change(
                "src/squall/agent/image/shell_container.py",
                "        if progress is None and await bring():\n",
                "        if progress is None and not bring:\n",
            ),
        ),
        {f"{SHELL}test_image_below_comes_from_the_store_as_for_a_build[False]": 'said.startswith("before step ")'},
    ),
    Mutation(
        "shell-own-layers",
        "a shell before a step has what is below it",
        "a built image is looked for where the keys of its steps lead",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "        return self._built_before.reached(spec, count, hold) or self._reached(spec, count, hold, 0)\n",
                "        return self._reached(spec, count, hold, 0)\n",
            ),
        ),
        {
            f"{SHELL}test_built_image_is_shown_on_its_own_layers_though_a_step_was_built_anew_for_another[5-3]": (
                '.startswith(f"before step {step} of 5: ")'
            ),
            f"{SHELL}test_image_is_shown_on_the_layers_of_the_one_that_it_began_with": 'startswith("before step 3',
            f"{SHELL}test_image_that_is_only_in_the_store_any_more_is_brought": '.startswith("before step 3 of 3: ")',
        },
    ),
    Mutation(
        "shell-failed-build",
        "a shell before a step has what is below it",
        "a failed build is shown with the layers of the one before it",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "        if self._definitions.has_failed(image.image_id(spec)):\n",
                "        if not spec.steps:\n",
            ),
        ),
        {
            f"{SHELL}test_forced_build_that_failed_is_shown_with_what_it_made_also_by_the_next_agent": (
                "after_failing[1] != built.layers[1]"
            ),
        },
    ),
)
