"""Mutations of buckets: what serves one may do nothing else, keys go nowhere, and nobody waits for ever."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

STORES = "tests/conformance/test_store_secrets.py::"
KERNEL = "tests/kernel/test_buckets.py::"
PLANS = "tests/runtime/test_bucket.py::"
RECORDS = "tests/protocol/test_bucket.py::"
SERVER = "tests/server/dispatch/asset/test_buckets.py::"
RUNTIME = "src/squall/runtime/bucket/"

BUCKET_FAULTS = (
    Mutation(
        "bucket-server-in-machine-network",
        "hostile bucket that takes s3fs over",
        "it is in the machine's network, where nothing is refused",
        (
            Change(
                f"{RUNTIME}plan.py",
                "        op.JoinNetwork(spec.network.netns_path) if spec.network else op.RaiseLoopback(),\n",
                "",
            ),
        ),
        {f"{PLANS}test_its_process_may_do_nothing_when_it_becomes_the_program": "op.JoinNetwork"},
    ),
    Mutation(
        "bucket-server-with-capabilities",
        "hostile bucket that takes s3fs over",
        "it is root of the range with all capabilities over it",
        (Change(f"{RUNTIME}plan.py", "        op.DropCapabilities(()),\n", ""),),
        {f"{KERNEL}test_its_program_may_do_nothing_but_serve": 'r"^Cap'},
    ),
    Mutation(
        "bucket-key-in-arguments",
        "another user of the machine who lists its processes",
        "keys are in the arguments of s3fs",
        (
            Change(
                f"{RUNTIME}program.py",
                '        "dbglevel=err",\n',
                '        "dbglevel=err",\n        *(f"key={value}" for value in bucket.env.values()),\n',
            ),
        ),
        {f"{PLANS}test_keys_are_in_the_environment_and_nowhere_else": "not any"},
    ),
    Mutation(
        "bucket-key-in-repr",
        "failure that shows what it was about",
        "keys are in its message",
        (
            Change(
                "src/squall/runtime/spec.py",
                "env: Mapping[str, str] = field(default_factory=dict, repr=False)",
                "env: Mapping[str, str] = field(default_factory=dict)",
            ),
        ),
        {f"{PLANS}test_keys_are_in_the_environment_and_nowhere_else": '"planted" not in repr'},
    ),
    Mutation(
        "bucket-whole-secret",
        "secret with more than keys",
        "all of it goes to the node for a bucket",
        (
            Change(
                "src/squall/protocol/bucket.py",
                "for name, value in values.items() if name in KEY_NAMES}",
                "for name, value in values.items()}",
            ),
        ),
        {f"{SERVER}test_only_the_keys_of_its_secret_go_with_a_container": "start.buckets =="},
    ),
    Mutation(
        "bucket-secret-pruned",
        "secret that only a bucket names",
        "it goes a week after it was sent",
        (
            Change(
                "src/squall/server/store/sql_secrets.py",
                'for bucket in values.get("buckets") or () if "secret_id" in bucket',
                "for bucket in ()",
            ),
        ),
        {f"{STORES}test_those_go_that_nothing_leads_to[sqlite]": "store.secrets.prune(5.0) == 4"},
    ),
    Mutation(
        "bucket-of-earlier-options",
        "function with a bucket by options that is given other volumes by options again",
        "the bucket stays beside them",
        (
            Change(
                "src/squall/server/model/variant.py", '        values["buckets"] = later.buckets\n', "        pass\n"
            ),
        ),
        {
            "tests/server/model/test_variant.py::test_mounts_are_all_replaced_by_those_of_options_buckets_too": (
                "merged(BASE, again).buckets"
            )
        },
    ),
    Mutation(
        "bucket-option-smuggled",
        "address of a store with a comma in it",
        "s3fs takes what follows for another option",
        (
            Change(
                "src/squall/protocol/bucket.py",
                "        and _URL_PATH.fullmatch(parts.path)\n",
                "",
            ),
        ),
        {f"{RECORDS}test_what_is_none_is_refused_in_words[fields11-no address of a store]": "problem in bucket"},
    ),
    Mutation(
        "bucket-read-only-by-word",
        "container with a bucket that it may only read",
        "only s3fs says that nothing may be written",
        (
            Change(
                f"{RUNTIME}plan.py",
                "op.MakeBucketMount(in_words(bucket), bucket.is_read_only)",
                "op.MakeBucketMount(in_words(bucket), False)",
            ),
        ),
        {f"{KERNEL}test_what_is_read_only_takes_no_write": "Read-only file system"},
    ),
    Mutation(
        "bucket-waits-for-ever",
        "container that is killed while its store is silent",
        "its end waits as long as s3fs does",
        (
            Change(
                "src/squall/runtime/registry.py", "                self._buckets.hurry(entry.spec.container_id)\n", ""
            ),
        ),
        {f"{KERNEL}test_one_that_is_killed_while_its_store_is_silent_ends_in_bounded_time": "not all that was written"},
    ),
    Mutation(
        "bucket-killed-with-container",
        "container that is killed with a file open",
        "s3fs is in its cgroup, and what was written is lost",
        (
            Change(
                "src/squall/runtime/registry.py",
                "                self._buckets.hurry(entry.spec.container_id)\n",
                "                self._buckets.end(entry.spec.container_id, lambda _: None)\n",
            ),
        ),
        {f"{KERNEL}test_one_that_was_killed_has_sent_what_it_had_open": 'store.keys() == ["open"]'},
    ),
    Mutation(
        "bucket-server-left",
        "container that has ended",
        "what served its bucket stays",
        (
            Change(
                "src/squall/runtime/registry.py",
                "self._buckets.end(entry.spec.container_id, lambda failure: self._without_buckets(entry, failure))",
                "self._remove_cgroup(entry, 0)",
            ),
        ),
        {f"{KERNEL}test_nothing_is_left_of_one_that_has_ended": "detect_cgroups"},
    ),
    Mutation(
        "bucket-start-not-awaited",
        "store that refuses the keys",
        "the container begins, and finds out by itself",
        (
            Change(
                f"{RUNTIME}servers.py",
                "            for mount in mounts:\n                os.fstatvfs(mount)\n",
                "",
            ),
        ),
        {f"{KERNEL}test_wrong_keys_are_told_with_the_bucket_and_the_cause": "pytest.raises(RuntimeFailure)"},
    ),
)
