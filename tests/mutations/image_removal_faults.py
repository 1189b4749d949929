"""Mutations of what the removal of single images promises: none that is used, and nothing of another one."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

DELETE = "tests/agent/image/test_delete.py::"
ON_SERVER = "tests/server/dispatch/image/test_delete.py::"

IMAGE_REMOVAL_FAULTS = (
    Mutation(
        "rm-used",
        "rm keeps what is used",
        "the image of an app is removed",
        (
            Change(
                "src/squall/server/dispatch/image/delete.py",
                "        if image_id in users:\n",
                "        if image_id in ():\n",
            ),
        ),
        {
            f"{ON_SERVER}test_image_of_an_app_and_its_container_is_refused_until_it_is_stopped[web:1]": (
                "await refused(stage, node, text)"
            ),
        },
    ),
    Mutation(
        "rm-published",
        "rm keeps what is used",
        "a published image is removed by its id",
        (
            Change(
                "src/squall/server/dispatch/image/delete.py",
                "        if others and image_id in by_id:\n",
                "        if others and image_id in ():\n",
            ),
        ),
        {
            f"{ON_SERVER}test_published_image_is_refused_by_its_id_unless_its_names_are_given_too": (
                "await refused(stage, node, IMAGE_ID)"
            ),
        },
    ),
    Mutation(
        "rm-held",
        "rm keeps what is held",
        "an image goes but for the layer that somebody holds",
        (
            Change(
                "src/squall/agent/image/garbage.py", "if use.users and wanted.issuperset", "if () and wanted.issuperset"
            ),
        ),
        {f"{DELETE}test_image_of_which_one_layer_is_held_stays_whole": "assert is_whole"},
    ),
    Mutation(
        "rm-shared",
        "rm takes no layer of another image",
        "all layers of the image go",
        (
            Change(
                "src/squall/agent/image/garbage.py",
                "        if use.image_ids and wanted.issuperset(use.image_ids):\n",
                "        if not wanted.isdisjoint(use.image_ids):\n",
            ),
        ),
        {f"{DELETE}test_layers_that_another_image_has_stay_and_layers_of_no_image_too": "names(shop.store.list())"},
    ),
)
