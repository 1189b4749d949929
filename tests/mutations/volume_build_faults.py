"""Mutations of volumes in steps of images, in shells and in options."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

VOLUMES = "tests/agent/volume/test_volumes.py::"
BUILDS = "tests/agent/image/test_step_mounts.py::"
SERVER = "tests/server/dispatch/"
STEPS = "src/squall/agent/image/step_container.py"
MOUNTS = "src/squall/server/dispatch/asset/volume_mounts.py"

VOLUME_BUILD_FAULTS = (
    Mutation(
        "options-leave-buckets",
        "function with a bucket that is called with other volumes",
        "its bucket stays",
        (
            Change(
                "src/squall/server/model/variant.py",
                "        buckets=base.buckets if options.volumes is None else options.buckets or (),\n",
                "",
            ),
        ),
        {
            "tests/server/model/test_variant.py::"
            "test_options_take_the_place_of_what_the_function_has[options6-changed6]": ("found == expected")
        },
    ),
    Mutation(
        "options-volumes-unchecked",
        "options that name a volume that is not there, or a place that cannot be",
        "the server makes the variant",
        (
            Change(
                "src/squall/server/dispatch/methods.py",
                '            await self._plane.volume_mounts.check(caller, "FunctionBind", (asked,))\n',
                "",
            ),
        ),
        {f"{SERVER}asset/test_volume_mounts.py::test_options_mount_volumes_that_are_there": "failure_of("},
    ),
    Mutation(
        "step-bucket-secret-keyed",
        "step with a bucket, after another secret was given to one before it",
        "it is built again, since its secret is called otherwise",
        (
            Change(
                "src/squall/protocol/image.py",
                '        bucket.pop("secret_id", None)\n',
                "        pass\n",
            ),
        ),
        {
            "tests/protocol/test_image.py::"
            "test_what_is_mounted_of_a_bucket_and_where_is_part_of_the_key_but_not_what_its_secret_is_called": (
                "image.cache_key"
            )
        },
    ),
    Mutation(
        "step-bucket-unwatched",
        "step that fills the disk by its bucket",
        "nobody looks at what its bucket has there",
        (
            Change(
                STEPS,
                "        for number, pid in enumerate(started.bucket_pids):\n",
                "        for number, pid in ():\n",
            ),
        ),
        {f"{BUILDS}test_step_has_its_buckets_with_keys_of_theirs_and_its_layer_no_mount_point": "in seen"},
    ),
    Mutation(
        "step-volumes-left-open",
        "step with a volume that fails, or does not start",
        "its volumes are closed only after a good end",
        (
            Change(
                STEPS,
                "        try:\n            await self._network.release(slot)\n        finally:\n",
                "        await self._network.release(slot)\n        if False:\n",
            ),
        ),
        {f"{BUILDS}test_volumes_of_a_failed_step_are_closed_as_those_of_others": "len(volumes.closed) == 2"},
    ),
    Mutation(
        "step-ending-cut-off",
        "build or shell that is given up while its container is being removed",
        "its network slot is never given back",
        (
            Change(
                STEPS,
                "await to_the_end(self._take_back(spec.container_id, slot, mounting))",
                "await self._take_back(spec.container_id, slot, mounting)",
            ),
        ),
        {
            "tests/agent/image/test_ending.py::"
            "test_a_build_that_is_given_up_while_its_container_is_removed_leaves_nothing": "shop.leftovers() == NOTHING"
        },
    ),
    Mutation(
        "step-mount-point-in-layer",
        "step that has a volume mounted where the image has nothing",
        "the mount point becomes a directory of the image",
        (
            Change(
                "src/squall/agent/image/layer_maker.py",
                "own = (*(one.target for one in making.step.volumes), ",
                "own = (*(), ",
            ),
        ),
        {f"{BUILDS}test_step_has_its_volumes_and_its_layer_no_mount_point": "os.listdir(built.layers[1])"},
    ),
    Mutation(
        "step-waits-for-server",
        "step that ends while the server is away",
        "what it wrote is tried to commit all the same, while the build waits",
        (
            Change(
                "src/squall/agent/volume/volumes.py",
                "        if not self._source.is_connected or self._is_stopped:\n",
                "        if self._is_stopped:\n",
            ),
        ),
        {
            f"{VOLUMES}test_what_a_step_has_written_waits_for_a_server_and_not_the_step": (
                'not await node.volumes.close_now("step")'
            )
        },
    ),
    Mutation(
        "step-volumes-unchecked",
        "build that a container asks for, with a volume of another environment",
        "the server looks at no volumes of builds",
        (
            Change(
                "src/squall/server/dispatch/streams.py",
                "            await self._plane.volume_mounts.check_build(caller, record)\n",
                "",
            ),
        ),
        {
            f"{SERVER}asset/test_volume_mounts.py::"
            "test_a_build_mounts_volumes_that_are_there_and_in_a_container_those_of_its_environment": (
                "failure = await failure_of(built(client, mount))"
            )
        },
    ),
    Mutation(
        "shell-mounts-believed",
        "client that says by itself what a shell is to mount",
        "the node is told so",
        (Change(MOUNTS, "volumes=(), mounts=tuple(mounts))", "volumes=(), mounts=(*mounts, *record.mounts))"),),
        {
            f"{SERVER}image/test_shell.py::"
            "test_a_node_that_opens_a_shell_is_told_which_volumes_are_named_and_where_they_are_to_be": (
                "shell.asked[0].mounts =="
            )
        },
    ),
)
