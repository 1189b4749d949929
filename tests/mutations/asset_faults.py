"""Mutations of what dicts, queues, secrets and volumes have in common: whose they are, how they go, what is told."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

ASSETS = "src/squall/server/dispatch/asset/assets.py"
OWN = "tests/server/dispatch/asset/test_assets.py::"
DICTS = "tests/sdk/test_dict.py::"
EPHEMERAL = "tests/sdk/test_ephemeral.py::"
MESSAGES = "tests/sdk/test_secrets_in_messages.py::"

ASSET_FAULTS = (
    Mutation(
        "asset-of-another-owner-deleted",
        "code in a container that asks for an ephemeral asset under the id of somebody's",
        "what is somebody's goes when the container ends",
        (
            Change(
                ASSETS,
                "self._forget(await self._store.delete_of(owner))",
                "await self._delete(frozenset(self._owned.get(owner, ())))",
            ),
            Change(ASSETS, "                self._disown(owner, record.asset_id)\n", "                pass\n"),
        ),
        {
            f"{OWN}test_what_is_somebody_else_s_does_not_go_with_who_asked_for_its_id": (
                "await is_there(stage.client, named.asset_id)"
            )
        },
    ),
    Mutation(
        "popped-value-lost",
        "value of a dict that whoever pops it cannot read, or does not wait for",
        "it is gone from the dict, too",
        (
            Change(
                "src/squall/sdk/dict.py",
                "            back = self._give_back((encoded, body, found.blob_sha256))\n"
                "            if isinstance(error, Exception):\n"
                "                with suppress(Error):\n"
                "                    await back\n",
                "            del error\n",
            ),
        ),
        {
            f"{DICTS}test_a_value_whose_class_is_not_here_is_named_and_leaves_the_others": (
                'set(cache.keys()) == {"k", "l"}'
            ),
            f"{DICTS}test_what_is_popped_for_somebody_who_is_interrupted_is_put_back": '"it is lost"',
        },
    ),
    Mutation(
        "popped-value-over-newer",
        "key that got a newer value since it was popped",
        "the popped one is put over it",
        (Change("src/squall/sdk/dict.py", 'new_id("rq"), packed, skip_if_exists=True)', 'new_id("rq"), packed)'),),
        {f"{DICTS}test_a_newer_value_stays_where_what_was_popped_is_put_back": 'cache["k"] == "newer"'},
    ),
    Mutation(
        "ephemeral-hides-what-was-raised",
        "block of an ephemeral asset that raises while the server is away",
        "the program is told of the server only",
        (
            Change(
                "src/squall/sdk/_asset.py",
                "suppress(NotFoundError, exception.ConnectionError)",
                "suppress(NotFoundError)",
            ),
        ),
        {
            f"{EPHEMERAL}test_what_a_block_raises_is_told_though_its_server_is_gone[Dict]": (
                "raised == [ZeroDivisionError]"
            )
        },
    ),
    Mutation(
        "values-in-messages",
        "dictionary of values in the place of a secret",
        "the message repeats them",
        (
            Change(
                "src/squall/sdk/cloud_bucket_mount.py",
                "secret= must be a squall.Secret, not a {type(secret).__name__}",
                "secret= must be a squall.Secret, not {secret!r}",
            ),
        ),
        {
            f"{MESSAGES}test_a_dictionary_in_the_place_of_a_secret_is_told_without_its_values[bucket]": (
                '"hunter2" not in str(caught.value)'
            )
        },
    ),
    Mutation(
        "values-in-reprs",
        "record with what is in a secret, in a message or a log",
        "it shows the values",
        (
            Change(
                "src/squall/protocol/records.py",
                "is_shown = not isinstance(default, _Factory) or default.is_shown",
                "is_shown = True",
            ),
        ),
        {f"{MESSAGES}test_records_do_not_show_them[SecretCreate]": '"hunter2" not in repr(one)'},
    ),
    Mutation(
        "mounted-volume-of-others-unknown",
        "commit in a container to a volume of another environment that it has mounted",
        "it may not even be found",
        (Change(ASSETS, "if error.code == FORBIDDEN else None", "if False else None"),),
        {
            "tests/server/dispatch/asset/test_volume_mounts.py::"
            "test_a_container_finds_a_volume_of_another_environment_that_it_has_mounted_and_does_no_more_with_it": (
                "== [mounted, mounted]"
            )
        },
    ),
)
