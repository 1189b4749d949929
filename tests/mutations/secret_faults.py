"""Mutations of what is promised of secrets: who has their values, and that they outlive what happens to their key."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

AGENT = "src/squall/agent/"
DISPATCH = "src/squall/server/dispatch/"
KEY = "tests/agent/template/test_key.py::"
KEYS = "tests/main/test_secret_keys.py::"
SEAL = "tests/server/dispatch/asset/test_seal.py::"
SECRETS = "tests/server/dispatch/asset/test_secrets.py::"

SECRET_FAULTS = (
    Mutation(
        "secret-of-another-row",
        "a database that somebody has changed",
        "a row opens in the place of another one",
        (
            Change(
                f"{DISPATCH}asset/seal.py",
                "[_ASSOCIATED, whose.secret_id, whose.app_id, key_id, names]",
                "[_ASSOCIATED]",
            ),
        ),
        {
            f"{SEAL}test_what_stands_in_another_row_or_was_changed_is_not_opened[changes0]": "pytest.raises",
            f"{SEAL}test_what_stands_in_another_row_or_was_changed_is_not_opened[changes1]": "pytest.raises",
        },
    ),
    Mutation(
        "secret-key-lost",
        "a rotation that is killed",
        "the old key is gone before no row needs it",
        (
            Change(
                "src/squall/main/secret_keys.py",
                "(secrets.token_bytes(KEY_BYTES), *found)",
                "(secrets.token_bytes(KEY_BYTES),)",
            ),
        ),
        {f"{KEYS}test_a_rotation_has_both_keys_until_it_ends": "others == [old]"},
    ),
    Mutation(
        "secret-key-made-anew",
        "a rotation that is gone on with",
        "each attempt makes a key more",
        (
            Change(
                "src/squall/main/secret_keys.py",
                "        if self._given or len(found) > 1:\n            return found\n",
                "        if self._given:\n            return found\n",
            ),
        ),
        {f"{KEYS}test_a_rotation_has_both_keys_until_it_ends": "begin_rotation() == (new, old)"},
    ),
    Mutation(
        "secret-key-told",
        "settings that are told to who asks",
        "the key of secrets is among them",
        (Change("src/squall/main/config.py", 'frozenset(["token", "secret_key"])', 'frozenset(["token"])'),),
        {
            "tests/main/test_config.py::test_what_is_set_is_told_as_it_is_written_but_for_passwords": "told_settings(",
            "tests/main/test_config.py::test_a_wrong_key_of_secrets_is_refused_and_not_repeated": "pytest.raises",
        },
    ),
    Mutation(
        "secret-in-containers",
        "code in a container that changes secrets",
        "it may",
        (
            Change(
                f"{DISPATCH}client/callers.py",
                'it may pass secrets on, and no more."""\n        if self.scope_app_id:\n',
                'it may pass secrets on, and no more."""\n        if not self.scope_app_id and self.client is None:\n',
            ),
        ),
        {
            f"{SECRETS}test_a_container_passes_secrets_on_and_makes_those_of_its_own_apps_only": (
                "failure_of(attempt)).code"
            ),
        },
    ),
    Mutation(
        "secret-of-another-app",
        "a container that names another app's own secret",
        "it is given that",
        (
            Change(
                f"{DISPATCH}asset/secrets.py",
                "elif caller.scope_app_id and found.app_id != spec.app_id:",
                "elif not found.secret_id:",
            ),
        ),
        {f"{SECRETS}test_a_container_passes_secrets_on_and_makes_those_of_its_own_apps_only": ".code == code"},
    ),
    Mutation(
        "secret-lost-update",
        "a secret that is changed",
        "containers that start later are given what was in it before",
        (
            Change(
                f"{DISPATCH}asset/secrets.py",
                "                    break\n            self._forget(asset.asset_id)\n",
                "                    break\n",
            ),
        ),
        {
            f"{SECRETS}test_containers_that_run_keep_what_they_have_and_new_ones_get_what_is_new": (
                '[{"TOKEN": "one"}, {"TOKEN": "two"}]'
            ),
        },
    ),
    Mutation(
        "secret-lost-update-of-a-start",
        "a secret that is changed while a container starts",
        "what the start has read is what all later ones are given",
        (
            Change(
                f"{DISPATCH}asset/secrets.py",
                "            elif change_count == self._change_count:\n",
                "            else:\n",
            ),
        ),
        {
            f"{SECRETS}test_what_is_changed_while_a_container_starts_is_what_the_next_one_is_given": (
                '.secrets == {"TOKEN": "two"}'
            ),
        },
    ),
    Mutation(
        "secret-key-gone",
        "a key that is changed while a container starts",
        "what was read before cannot be decrypted after",
        (
            Change(
                f"{DISPATCH}asset/secrets.py",
                "        if not seal.has_key_of(sealed):\n",
                "        if not seal:\n",
            ),
        ),
        {
            f"{SECRETS}test_a_container_that_starts_while_the_key_is_changed_is_given_what_is_in_it": (
                "status == SUCCEEDED"
            ),
        },
    ),
    Mutation(
        "secret-of-another-template",
        "a secret that is changed",
        "the template of before is forked",
        (Change(f"{AGENT}template/key.py", '"secrets": request.secrets_mark', '"secrets": ""'),),
        {f"{KEY}test_what_can_be_seen_in_a_process_makes_another_key[changes7]": "!= key(tmp_path)"},
    ),
    Mutation(
        "secret-in-template-records",
        "what is written down of a template",
        "its record has what is in the secrets of its function",
        (Change(f"{AGENT}template/record.py", "env={}, secrets={})", "env={})"),),
        {
            "tests/agent/template/test_saved.py::test_secrets_are_remembered_by_the_next_agent[secrets]": (
                '"hunter2" not in'
            ),
        },
    ),
    Mutation(
        "secret-in-snapshots",
        "a function with secrets under gVisor",
        "what is in its memory is saved",
        (
            Change(
                f"{AGENT}template/way.py",
                "    if request.secrets and request.isolation == GVISOR:\n",
                "    if request.secrets and not request.isolation:\n",
            ),
        ),
        {
            "tests/agent/test_starts.py::"
            "test_what_has_secrets_is_forked_and_under_gvisor_started_plainly_with_the_cause": "not world.templates",
        },
    ),
    Mutation(
        "secret-precedence",
        "a variable that several have",
        "secrets win over env=",
        (
            Change(
                f"{AGENT}launch.py",
                "    env.update(request.secrets)\n    env.update(request.env)\n",
                "    env.update(request.env)\n    env.update(request.secrets)\n",
            ),
        ),
        {
            "tests/agent/test_launch.py::test_secrets_win_over_the_image_and_the_function_over_them": (
                '("secret", "function", "secret", "token-1")'
            ),
        },
    ),
)
