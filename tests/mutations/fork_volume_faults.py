"""Mutations of volumes of forks: what is there before a fork is somebody, and what it and its template begin with."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

FORKS = "tests/kernel/test_volumes_of_forks.py::"
GUEST = "tests/guest/test_files_on_volumes.py::"
AGENT = "tests/agent/template/test_volumes.py::"
CLONE = "src/squall/guest/clone.py"
TEMPLATES = "src/squall/agent/template/"

FORK_VOLUME_FAULTS = (
    Mutation(
        "fork-volume-ahead",
        "parked fork of a function with a volume",
        "it has the volume before it is somebody",
        (
            Change(
                "src/squall/runtime/plan.py",
                'spec = replace(spec, volumes=[replace(volume, image="") for volume in spec.volumes])',
                "spec = replace(spec)",
            ),
        ),
        {
            f"{FORKS}test_a_fork_that_waits_sees_and_keeps_nothing_of_a_volume": (
                'assert os.listdir(f"/proc/{status.pid}/root/data") == [".squall"]'
            )
        },
    ),
    Mutation(
        "fork-volume-others",
        "container that begins in a cell made for other volumes",
        "it begins without its own",
        (
            Change(
                "src/squall/runtime/forking.py",
                "        if [_place_of(one) for one in volumes] != [_place_of(one) for one in entry.spec.volumes]:\n",
                "        if False:\n",
            ),
        ),
        {
            f"{FORKS}test_a_fork_is_not_begun_with_other_volumes_than_it_was_prepared_for": (
                'with pytest.raises(RuntimeFailure, match="prepared for other volumes"):'
            )
        },
    ),
    Mutation(
        "fork-volume-mounter-holds",
        "process that mounts volumes and is kept waiting",
        "it keeps open what the spawner had open: a template's socket has no end then",
        (Change("src/squall/runtime/mounter.py", "        if descriptor not in kept:\n", "        if False:\n"),),
        {f"{FORKS}test_what_mounts_volumes_keeps_nothing_open_of_the_spawners": 'link.startswith("socket:")]) == 1'},
    ),
    Mutation(
        "fork-volume-file-left",
        "file on a volume that a template has open",
        "its forks go on without it",
        (Change(CLONE, "    if later is not None:\n        later.do(kit)\n", ""),),
        {f"{GUEST}test_files_and_directories_on_volumes_are_there_when_a_fork_begins[False]": "assert one.call() =="},
    ),
    Mutation(
        "fork-volume-file-of-the-template",
        "file on a volume that a template has open",
        "a fork holds its template's until its own volume comes",
        (Change(CLONE, "            file.close()\n            later.files", "            later.files"),),
        {
            f"{GUEST}test_files_and_directories_on_volumes_are_there_when_a_fork_begins[True]": (
                'assert not [link for link in links if "words" in link]'
            )
        },
    ),
    Mutation(
        "fork-volume-another-file",
        "newer version with another file in the place of one that a template has open",
        "its forks read on in that",
        (Change(CLONE, "            if _identity(again) != self.identity:\n", "            if False:\n"),),
        {
            f"{GUEST}test_a_fork_does_not_begin_with_another_file_on_a_volume_than_its_template_has_open[another]": (
                'assert why in fork.said().get("error", "it has begun")'
            )
        },
    ),
    Mutation(
        "fork-volume-uncommitted",
        "hook with snap=True that writes to a volume",
        "its template is forked before that is committed",
        (
            Change(
                f"{TEMPLATES}making.py",
                "            template.versions = await self._services.volumes.settle(template.template_id)\n",
                "            template.versions = {}\n",
            ),
        ),
        {
            f"{AGENT}test_what_a_template_writes_is_committed_before_it_is_forked_and_its_forks_begin_with_it": (
                "assert [(one.created_by, one.changes[0].path) for one in server.commits] =="
            )
        },
    ),
    Mutation(
        "fork-volume-older",
        "start that has waited for a template whose hooks wrote to a volume",
        "it begins with the version of before",
        (Change(f"{TEMPLATES}template.py", "seen.number <= start.version", "seen.number"),),
        {
            f"{AGENT}test_what_a_template_writes_is_committed_before_it_is_forked_and_its_forks_begin_with_it": (
                "assert Path(clone.volumes[0].image).stem == server.version(1).root"
            )
        },
    ),
    Mutation(
        "fork-volume-key",
        "function whose volumes are mounted in another way",
        "it is forked from what was loaded with them as they were",
        (
            Change(
                f"{TEMPLATES}key.py",
                '[to_wire(replace(start.mount, name="")) for start in request.volumes]',
                "len(request.volumes)",
            ),
        ),
        {
            f"{AGENT}test_how_a_volume_is_mounted_makes_a_template_another_one[change1-True]": (
                "assert (key(tmp_path, FUNCTION, volumes=volumes) != key(tmp_path, FUNCTION)) == is_another"
            )
        },
    ),
    Mutation(
        "fork-volume-shape",
        "function whose volumes are others than those that cells were made with",
        "its containers try to begin in those cells",
        (Change(f"{TEMPLATES}reserve.py", "        [start.mount for start in request.volumes],\n", ""),),
        {f"{AGENT}test_a_cell_is_for_the_volumes_that_it_was_made_with": 'assert "failed_fork" not in answer.phase_ms'},
    ),
    Mutation(
        "fork-volume-asked-again",
        "cold start of a function whose volume is on the node",
        "all of the volume's tree is asked for at each start",
        (
            Change(
                "src/squall/agent/volume/trees.py",
                "        if root in self._whole and path.exists():\n",
                "        if False:\n",
            ),
        ),
        {f"{AGENT}test_a_version_that_is_here_is_not_asked_for_again": "assert len(server.trees_asked) == 1"},
    ),
    Mutation(
        "fork-volume-covered",
        "volumes inside each other",
        "a fork has them on top of each other in another order, and misses one",
        (
            Change(
                f"{TEMPLATES}way.py",
                "    if cause := _covered(request):\n        return cause\n",
                "",
            ),
        ),
        {
            f"{AGENT}test_volumes_that_forks_cannot_have_are_told[targets2-namespaces-would cover /data/in]": (
                "assert (why in found) if why else not found"
            )
        },
    ),
    Mutation(
        "fork-volume-python-path",
        "volume on Python's own path",
        "an interpreter that began without it is forked",
        (
            Change(
                f"{TEMPLATES}templates.py",
                "        if target := volume_on_path(request, found.image):\n",
                '        if target := "":\n',
            ),
        ),
        {
            f"{AGENT}test_a_volume_that_python_may_load_from_before_user_code_is_there_before_python_is": (
                'assert (plain.path, of_function.path, beside.path) == ("plain", "fork", "fork")'
            )
        },
    ),
)
