"""Mutations of volumes in containers: what is written is in a version, once and whole, and takes nothing of others."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

VOLUMES = "tests/agent/volume/test_volumes.py::"
MOUNTED = "tests/agent/volume/test_mounted.py::"
COMMITS = "tests/agent/volume/test_commit.py::"
UPPERS = "tests/kernel/test_volume_uppers.py::"
MOUNTS = "tests/kernel/test_volumes.py::"
SERVER = "tests/server/dispatch/asset/test_volumes.py::"
AGENT = "src/squall/agent/volume/"
CHANGES = "src/squall/server/dispatch/asset/volume_changes.py"
USE = "namespaces-exec 5< /data/a; echo ready; sleep 600"
RUNTIME = "src/squall/runtime/volumes.py"

VOLUME_MOUNT_FAULTS = (
    Mutation(
        "volume-uncommitted-forgotten",
        "server that refuses a container's last commit",
        "what could not be committed at the end goes",
        (
            Change(
                f"{AGENT}volumes.py",
                "            if not all(done):\n",
                "            if False:\n",
            ),
        ),
        {f"{VOLUMES}test_what_cannot_be_committed_at_the_end_is_kept_until_it_can": '(upper / "one").exists()'},
    ),
    Mutation(
        "volume-crash-committed",
        "crash of the machine that leaves files of containers empty, or without their names",
        "versions have them like that",
        (Change(f"{AGENT}volumes.py", ' if holder.is_of_earlier_boot else ""', ' if False else ""'),),
        {
            f"{VOLUMES}test_what_a_crash_of_the_machine_has_torn_takes_nothing_from_a_version_and_is_set_aside": (
                "len(node.server.commits) == 1"
            )
        },
    ),
    Mutation(
        "volume-oldest-used-goes",
        "disk that is short",
        "what was fetched first goes first, however lately a container has read it",
        (Change(f"{AGENT}trees.py", "        self._contents.note_use(_names_in(names), self._left_at(path))\n", ""),),
        {
            f"{MOUNTED}test_what_was_mounted_last_goes_last_however_long_it_is_here[evict]": (
                "node.data() == {data_of(number) for number in left}"
            )
        },
    ),
    Mutation(
        "volume-refused-untold",
        "volume that takes no more",
        "a function returns, nothing of what it wrote is in the volume, and nobody hears of it",
        (Change(f"{AGENT}volumes.py", "        if not written.refused_count:\n", "        if False:\n"),),
        {f"{VOLUMES}test_what_is_refused_is_told_once_in_the_log_of_whoever_wrote_it[False]": ("len(node.said) == 1")},
    ),
    Mutation(
        "volume-deleted-takes-along",
        "volume deleted while a container writes to it and to another one",
        "the other one's writes wait for ever",
        (
            Change(
                f"{AGENT}volumes.py",
                "            if error.code == NOT_FOUND and await self._is_deleted(written.volume_id):\n",
                "            if False:\n",
            ),
        ),
        {f"{VOLUMES}test_a_deleted_volume_takes_nothing_of_the_others_along": "not uppers[0].exists()"},
    ),
    Mutation(
        "volume-base-not-told",
        "server restarted while containers write to volumes",
        "nobody tells it which versions must stay",
        (Change(f"{AGENT}volumes.py", "        if held != self._held:\n", "        if False:\n"),),
        {
            f"{VOLUMES}test_every_version_that_is_written_on_is_told_until_what_was_written_is_committed": (
                'told == [[("vo-3", 3)], [("vo-1", 1), ("vo-3", 3)], [("vo-1", 1)]]'
            )
        },
    ),
    Mutation(
        "volume-base-forgotten",
        "version that a node writes on",
        "the server forgets it when its turn has come",
        (
            Change(
                "src/squall/server/dispatch/services.py",
                "            self.node.held_volumes = frozenset(",
                "            _ = frozenset(",
            ),
        ),
        {
            f"{SERVER}test_a_version_that_a_node_needs_stays_also_while_its_agent_is_away": (
                "(await collect(client, volume_id)).version_count == 1"
            )
        },
    ),
    Mutation(
        "volume-base-guessed",
        "changes made in a version that is gone",
        "they are judged by the newest one, and take what others wrote",
        (
            Change(
                CHANGES,
                "    if change.action == wire.REMOVE_SEEN:\n        return\n    if change.action in",
                "    if change.action in",
            ),
        ),
        {f"{SERVER}test_for_a_version_that_is_not_kept_any_more_nothing_of_others_goes": "await listed("},
    ),
    Mutation(
        "volume-directory-takes-along",
        "two containers that write to one directory",
        "whoever removes it takes along what the other one put there",
        (Change(f"{AGENT}upper.py", "(path), wire.REMOVE_EMPTY)", "(path), wire.REMOVE)"),),
        {f"{UPPERS}test_nothing_that_others_have_put_meanwhile_goes[{seed}]": "failure_of(" for seed in (9, 11)},
    ),
    Mutation(
        "volume-file-replaces-directory",
        "file that a container writes where others have made a directory",
        "all that is in that goes",
        (
            Change(
                "src/squall/server/volume/tree.py",
                "        if there is not None and there.kind == DIRECTORY and there.node:\n            return False\n",
                "",
            ),
        ),
        {
            f"{SERVER}test_a_file_takes_the_place_of_a_directory_as_it_was_seen_and_of_no_other": "== kept",
            f"{UPPERS}test_nothing_that_others_have_put_meanwhile_goes[0]": "failure_of(",
        },
    ),
    Mutation(
        "volume-moved-replaces",
        "directory moved to where others have one",
        "theirs is gone",
        (
            Change(
                "src/squall/server/volume/graft.py",
                "        if there is not None and there.kind == DIRECTORY:\n",
                "        if False:\n",
            ),
        ),
        {f"{SERVER}test_a_directory_that_comes_from_elsewhere_is_beside_what_others_have_put_there": "await listed("},
    ),
    Mutation(
        "volume-frozen-until-put",
        "slow server in the middle of a commit",
        "the container is frozen until everything is there",
        (
            Change(
                f"{AGENT}commit.py",
                "self._capture(written, ahead, spool, is_patient=is_patient",
                "self._capture(written, ahead, store, is_patient=is_patient",
            ),
        ),
        {f"{COMMITS}test_while_it_is_frozen_only_what_has_changed_is_read_and_nothing_is_put": "([0, 0, 2, 2], 3)"},
    ),
    Mutation(
        "volume-too-deep",
        "path that no version can have",
        "nothing else of the container is committed for ever",
        (Change(f"{AGENT}upper.py", "            if not _fits(here):\n", "            if False:\n"),),
        {
            f"{COMMITS}test_what_is_too_deep_for_a_version_is_said_once_and_keeps_nothing_else_from_being_committed": (
                "len(changes) == DEPTH_MAX + 1"
            )
        },
    ),
    Mutation(
        "volume-too-many-changes",
        "more changes than a commit may have",
        "they are refused for ever",
        (
            Change(
                f"{AGENT}commit.py",
                "        starts = range(0, len(changes), COMMIT_CHANGES_MAX)\n",
                "        starts = range(0, 1)\n",
            ),
        ),
        {f"{COMMITS}test_more_changes_than_a_commit_has_are_several": "len(await container.commit()) == 10"},
    ),
    Mutation(
        "volume-reload-broken-off",
        "connection lost in the middle of a reload",
        "the version that is mounted by then is written down by nobody",
        (
            Change(
                f"{AGENT}volumes.py",
                "return await asyncio.shield(self._tasks.start(self._reload(runtime_id, volume_id)))",
                "return await self._reload(runtime_id, volume_id)",
            ),
        ),
        {f"{VOLUMES}test_a_reload_that_nobody_waits_for_any_more_is_brought_to_its_end": "await happens("},
    ),
    Mutation(
        "volume-reload-guesses",
        "spawner killed in the middle of a reload",
        "what was written on the newer version is thrown away",
        (
            Change(
                f"{AGENT}volumes.py",
                "        except SpawnerGone as error:\n            raise Pl",
                "        except SpawnerGone as error:\n            gone = [fresh]\n            raise Pl",
            ),
        ),
        {f"{VOLUMES}test_where_nobody_knows_which_version_is_mounted_both_are_committed[False]": ("after.exists()")},
    ),
    Mutation(
        "volume-one-at-a-time",
        "container that takes long to be committed",
        "all others of its node wait for it",
        (Change(f"{AGENT}volumes.py", "SERVED_AT_ONCE = 4\n", "SERVED_AT_ONCE = 1\n"),),
        {f"{VOLUMES}test_a_container_that_takes_long_to_be_committed_keeps_no_other_waiting": ("await node.served(")},
    ),
    Mutation(
        "volume-reload-empties",
        "version without the directory that is mounted",
        "the container is left with nothing",
        (
            Change(
                RUNTIME,
                "        with _seen(point, version, volume, id_range) as seen:\n            _keep_mounted(here, old)\n",
                "        sc.unmount(here)\n"
                "        with _seen(point, version, volume, id_range) as seen:\n            _keep_mounted(here, old)\n",
            ),
        ),
        {
            f"{MOUNTS}test_a_version_without_the_sub_path_leaves_the_one_that_there_was[namespaces-files0]": (
                '"/data/a")).stdout == "one"'
            )
        },
    ),
    Mutation(
        "volume-leads-outside",
        "link that a container puts in the place of a directory while it is committed",
        "files of the machine are in the version",
        (
            Change(
                f"{AGENT}upper.py",
                "        fd = open_beneath(top, file.local, os.O_RDONLY | os.O_NONBLOCK)\n",
                "        fd = os.open(os.path.join(os.fsencode(upper), file.local), os.O_RDONLY | os.O_NONBLOCK)\n",
            ),
            Change(
                f"{AGENT}upper.py",
                "    if stat.S_ISREG(status.st_mode) and status.st_ino == file.fingerprint[0]:\n",
                "    if stat.S_ISREG(status.st_mode):\n",
            ),
        ),
        {f"{COMMITS}test_a_directory_that_becomes_a_link_while_it_is_committed_leads_nowhere": "secret"},
    ),
    Mutation(
        "volume-thread-left-behind",
        "block that cannot be had, or put",
        "threads go on with the file of others that has its number by then",
        (
            Change(
                f"{AGENT}aside.py",
                "    await _ended([doing])\n    return doing.result()\n",
                "    return await doing\n",
            ),
        ),
        {
            f"{COMMITS}test_a_put_that_fails_ends_all_others_of_its_file": "reading == {str(path)}",
            "tests/agent/volume/test_contents.py::test_a_block_that_cannot_be_had_ends_all_others_of_its_file": (
                "written == {"
            ),
        },
    ),
    Mutation(
        "volume-open-note-short",
        "file that was open when it was committed, and is removed then",
        "nothing of the container is committed any more",
        (
            Change(
                f"{AGENT}upper.py",
                "    return (*fingerprint[:-1], -1)\n",
                "    return (-1, stat.S_IFCHR, -1)\n",
            ),
        ),
        {
            f"{COMMITS}test_what_was_open_when_it_was_committed_may_become_anything[removed]": (
                'if path != "result"} == expected'
            )
        },
    ),
    Mutation(
        "volume-renamed-away",
        "file that is renamed while it is looked for",
        "a version is without it",
        (
            Change(
                f"{AGENT}upper.py",
                "        if len(fingerprint) > FIELDS and not _is_at(os.path.join(upper, path), fingerprint):\n",
                "        if False:\n",
            ),
        ),
        {f"{COMMITS}test_what_is_renamed_while_it_is_looked_for_is_never_away": '"remove" not in {'},
    ),
    Mutation(
        "volume-committed-twice",
        "agent killed between the server's answer and its note of it",
        "the next one commits the same again, over what others wrote since",
        (
            Change(
                f"{AGENT}commit.py",
                '    return f"rq-{digest.hexdigest()}" if written.note is not None else new_id("rq")\n',
                '    return new_id("rq")\n',
            ),
        ),
        {f"{VOLUMES}test_a_commit_that_was_not_written_down_is_made_again_as_the_same": "ids[0] == ids[1]"},
    ),
    Mutation(
        "volume-contents-seen",
        "kernel that has no layers for contents alone",
        "a container sees the contents of all volumes of its node",
        (
            Change(
                f"{AGENT}tree_image.py",
                "    if (way or way_of(os.uname().release)) == LAYER:\n",
                "    if False:\n",
            ),
        ),
        {f"{UPPERS}test_what_is_in_other_volumes_is_seen_nowhere[layer-True]": "failure_of("},
    ),
    Mutation(
        "volume-busy-swapped",
        "reload while a file is open",
        "its version goes from under it",
        (Change(RUNTIME, "        sc.unmount(place, 0)\n", "        sc.unmount(place)\n"),),
        {f"{MOUNTS}test_a_version_in_use_stays_and_whoever_asks_is_told[{USE}]": "VolumeBusy"},
    ),
)
