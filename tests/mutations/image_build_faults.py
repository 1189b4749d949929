"""Mutations of what builds promise: one layer for each step, whole or not there, without secrets, kept while needed."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

BELOW = "tests/agent/image/test_layers_below.py::"
BUILDER = "tests/agent/image/test_builder.py::"
GARBAGE = "tests/agent/image/test_garbage.py::"
HOLDS = "tests/agent/image/layer/test_holds.py::"
SECRETS = "tests/agent/image/test_build_secrets.py::"
STORE = "tests/agent/image/layer/test_store.py::"

IMAGE_BUILD_FAULTS = (
    Mutation(
        "build-failed",
        "a failed step leaves no layer",
        "what a step that failed has written is kept",
        (
            Change(
                "src/squall/agent/image/step_container.py",
                "        if status.code != 0:\n",
                "        if status.code is None:\n",
            ),
        ),
        {f"{BUILDER}test_failed_step_says_what_it_printed_and_makes_no_layer": "pytest.raises(BuildFailed"},
    ),
    Mutation(
        "build-killed",
        "a build killed half-way leaves no layer",
        "what it had made stays for ever",
        (Change("src/squall/agent/image/builder.py", "        await asyncio.to_thread(self._store.sweep)\n", ""),),
        {
            f"{BUILDER}test_what_a_killed_agent_left_is_removed_before_the_first_build": (
                'os.listdir(tmp_path / "layers/.scratch") == []'
            ),
        },
    ),
    Mutation(
        "build-killed-container",
        "a build killed half-way leaves no layer",
        "its container goes on",
        (Change("src/squall/agent/image/builder.py", "        await self._containers.remove_left()\n", ""),),
        {
            f"{BUILDER}test_what_a_killed_agent_left_is_removed_before_the_first_build": (
                'list(machine.containers) == ["ct-function"]'
            ),
        },
    ),
    Mutation(
        "build-killed-others",
        "a build killed half-way leaves no layer",
        "what others are making is removed with it",
        (
            Change(
                "src/squall/agent/image/layer/scratch.py",
                "            if try_lock(descriptor):\n                remove_tree",
                "            if descriptor:\n                remove_tree",
            ),
        ),
        {
            f"{STORE}test_sweep_removes_what_nobody_locks_and_keeps_what_is_being_made": (
                "LayerStore(tmp_path).sweep() == 1"
            ),
        },
    ),
    Mutation(
        "build-killed-packing",
        "a build killed half-way leaves no layer",
        "packing that was killed has not failed",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                "    if packed.returncode != 0:\n",
                "    image.touch()\n    if packed.returncode > 0:\n",
            ),
        ),
        {
            f"{STORE}test_packing_that_is_killed_or_hangs_leaves_no_layer"
            "[kill -9 $$-it ended with status -9]": "pytest.raises(LayerError",
        },
    ),
    Mutation(
        "build-twice-callers",
        "two builds at once build once",
        "each caller has a build of its own",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "        build = self._builds.get(name)\n",
                "        build = None\n",
            ),
        ),
        {f"{BUILDER}test_callers_of_one_image_share_its_build_and_its_log": "assert early == late"},
    ),
    Mutation(
        "build-twice-steps",
        "two builds at once build once",
        "images that begin alike make their first steps at the same time",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "            async with self._only_one(key):\n",
                '            async with self._only_one(f"{key}{id(build)}"):\n',
            ),
        ),
        {
            f"{BUILDER}test_images_that_begin_alike_share_the_steps_even_while_both_are_built": (
                "assert len(shop.specs) == 3"
            ),
        },
    ),
    Mutation(
        "build-twice-processes",
        "two builds at once build once",
        "another process may build the same",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                "            while not try_lock(descriptor):\n",
                "            while try_lock(descriptor) is None:\n",
            ),
        ),
        {f"{STORE}test_key_is_locked_for_one_at_a_time": 'raise AssertionError("both held the lock")'},
    ),
    Mutation(
        "build-cached",
        "a cached step is not built again",
        "it is",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "        if step.image_id and other is None:\n            return False\n",
                "        if (step.image_id and other is None) or step.commands:\n            return False\n",
            ),
        ),
        {
            f"{BUILDER}test_images_that_begin_alike_share_the_steps_even_while_both_are_built": (
                "assert len(shop.specs) == 3"
            ),
        },
    ),
    Mutation(
        "build-below",
        "no layer is laid on another than it was built on",
        "a step has one layer, whatever is below",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                'return hashlib.sha256(f"{_checked(_KEY, key)} {below}".encode()).hexdigest() if below else ',
                "return ",
            ),
        ),
        {f"{BELOW}test_no_layer_is_laid_on_one_that_it_was_not_built_on": "later.layers[2] != first.layers[2]"},
    ),
    Mutation(
        "build-below-source",
        "no layer is laid on another than it was built on",
        "files of an image that was built anew are the old ones",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                "    text = f\"{' '.join(layer_ids)}\\n{' '.join(source_ids)}\"\n",
                "    text = f\"{' '.join(layer_ids)}\\n{' '.join(source_ids)[:0]}\"\n",
            ),
        ),
        {f"{BELOW}test_files_are_taken_anew_from_an_image_that_was_built_anew": '== ("1", "3")'},
    ),
    Mutation(
        "build-layer-id",
        "an id stands for one content",
        "a layer that is built again is called as the lost one",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                '        layer_id = f"ly-{secrets.token_hex(16)}"\n        layer = Layer(',
                '        layer_id = f"ly-{key[:32]}"\n        layer = Layer(',
            ),
        ),
        {f"{BELOW}test_what_stands_on_a_lost_layer_is_built_again_with_it": "assert len(shop.specs) == 4"},
    ),
    Mutation(
        "build-forced",
        "a forced step is built again, and all after it",
        "only that step is",
        (
            Change(
                "src/squall/agent/image/builder.py",
                "progress.is_forced = progress.is_forced or step.force_build",
                "progress.is_forced = step.force_build",
            ),
        ),
        {f"{BUILDER}test_steps_after_a_forced_one_without_a_layer_are_built_again": "assert len(shop.specs) == 2"},
    ),
    Mutation(
        "build-secret-key",
        "secrets in no key",
        "with other secrets it is another image",
        (Change("src/squall/protocol/image.py", '"secrets", "title")', '"title")'),),
        {
            f"{SECRETS}test_secrets_are_in_the_environment_of_their_step_alone_and_in_no_line": (
                "image.image_id(make_spec(*steps)) == image.image_id("
            ),
        },
    ),
    Mutation(
        "build-secret-layer",
        "secrets in no layer",
        "what a step was given is noted with its layer",
        (
            Change(
                "src/squall/agent/image/layer_maker.py",
                "return self._store.commit(scratch, upper, making.key, {}, ",
                "return self._store.commit(scratch, upper, making.key, making.secret_env, ",
            ),
        ),
        {
            f"{SECRETS}test_secrets_are_in_the_environment_of_their_step_alone_and_in_no_line": (
                'b"s3cret-value" not in kept'
            ),
        },
    ),
    Mutation(
        "build-secret-line",
        "secrets in no line",
        "what a step prints of them is shown",
        (
            Change(
                "src/squall/agent/image/making.py",
                '"hidden", hidden_values(self.secrets))',
                '"hidden", hidden_values({}))',
            ),
        ),
        {
            f"{SECRETS}test_secrets_are_in_the_environment_of_their_step_alone_and_in_no_line": (
                '"the token is ***" in lines'
            ),
        },
    ),
    Mutation(
        "build-secret-later-line",
        "secrets in no line",
        "what a step prints of another step's is shown",
        (
            Change(
                "src/squall/agent/image/making.py",
                '"hidden", hidden_values(self.secrets))',
                '"hidden", hidden_values({"": self.secret_env}))',
            ),
        ),
        {
            f"{SECRETS}test_secret_that_an_earlier_step_was_given_is_in_no_line_and_no_error_of_another": (
                '"s3cret" not in text'
            ),
        },
    ),
    Mutation(
        "gc-needed",
        "gc keeps what is used",
        "what is needed goes as well",
        (Change("src/squall/agent/image/garbage.py", "    if use.users or use.used_at", "    if use.used_at"),),
        {f"{GARBAGE}test_needed_image_stays_whole_and_the_rest_goes": "== set(kept.config.layers)"},
    ),
    Mutation(
        "gc-lately",
        "gc keeps what is used",
        "what was used a moment ago goes as well",
        (Change("src/squall/agent/image/garbage.py", "now - max(request.older_than_s, MARGIN_S)", "now - MARGIN_S"),),
        {f"{GARBAGE}test_what_was_used_lately_stays_unless_all_is_to_go": "== (0, ())"},
    ),
    Mutation(
        "gc-held",
        "gc keeps what is held",
        "a layer that another process holds is removed",
        (
            Change(
                "src/squall/agent/image/layer/store.py",
                '            if not try_lock(descriptor):\n                raise LayerError(f"cannot remove layer',
                '            if not descriptor:\n                raise LayerError(f"cannot remove layer',
            ),
        ),
        {
            f"{HOLDS}test_held_layer_stays_and_its_users_are_named": 'pytest.raises(LayerError, match="it is in use")',
            f"{HOLDS}test_other_process_keeps_a_layer_until_it_is_killed": (
                'pytest.raises(LayerError, match="it is in use")'
            ),
        },
    ),
    Mutation(
        "gc-build",
        "gc keeps what is held",
        "a build holds nothing of what it has found",
        (
            Change(
                "src/squall/agent/image/progress.py",
                "return self.hold is None or self.hold.add(layer.layer_id)",
                "return True",
            ),
        ),
        {f"{GARBAGE}test_layers_that_a_build_has_found_stay_while_it_goes_on": "assert done.freed_bytes == 0"},
    ),
    Mutation(
        "gc-fetch",
        "gc keeps what is held",
        "parts that somebody fetches go by their age",
        (
            Change(
                "src/squall/agent/image/garbage.py",
                "users = (_FETCH,) if left.is_busy else ()",
                "users: tuple[str, ...] = ()",
            ),
        ),
        {
            f"{GARBAGE}test_parts_of_a_layer_go_when_nobody_has_fetched_more_of_it_lately": (
                '[("a fetch that is under way",), (), (), ()]'
            ),
        },
    ),
    Mutation(
        "gc-half-fetched",
        "gc removes what nobody needs",
        "parts of layers that were never whole stay",
        (Change("src/squall/agent/image/garbage.py", "for left in left_layers(store)]", "for left in ()]"),),
        {f"{GARBAGE}test_parts_of_a_layer_go_when_nobody_has_fetched_more_of_it_lately": "[False, False, True, True]"},
    ),
    Mutation(
        "gc-space",
        "gc gives space back",
        "a removed layer stays mounted",
        (
            Change(
                "src/squall/runtime/layer_mounts.py",
                "self._unmount([identity for identity in self._idle() if self._is_removed(identity)])",
                "self._unmount([])",
            ),
        ),
        {
            "tests/kernel/test_erofs.py::test_space_of_removed_images_is_free_when_nobody_stands_on_them[file]": (
                "assert without_the_idle == (3,"
            ),
        },
    ),
    Mutation(
        "gc-published",
        "gc keeps what is used",
        "a published image is needed by nobody",
        (
            Change(
                "src/squall/server/dispatch/image/garbage.py",
                "        named = await plane.store.list_image_names()\n",
                "        named = (await plane.store.list_image_names())[:0]\n",
            ),
        ),
        {
            "tests/server/dispatch/image/test_garbage.py::test_published_image_stays_until_its_name_is_taken_away": (
                'needed == {IMAGE_ID: ("name web:latest",)}'
            ),
        },
    ),
    Mutation(
        "upload-known-block",
        "blocks known are not sent again",
        "a client sends all of a file",
        (
            Change(
                "src/squall/sdk/_mount.py",
                "for sha256 in created.missing_sha256s:",
                "for sha256 in {**mount.parts, **mount.contents}:",
            ),
        ),
        {
            "tests/sdk/test_mount.py::test_of_a_large_file_only_what_changed_is_sent_again": (
                "assert len(server.blobs_put) == 5"
            ),
        },
    ),
)
