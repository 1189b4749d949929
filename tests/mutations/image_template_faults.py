"""Mutations of what is shared and what is not: templates of images, verdicts, and the ends of templates."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

TEMPLATE = "src/squall/agent/template/"
STARTS = "tests/agent/test_starts.py::"
TEMPLATES = "tests/agent/template/test_templates.py::"
IMAGES = "tests/agent/template/test_image_templates.py::"
MEMORY = "tests/agent/template/test_memory.py::"
SAVED = "tests/agent/template/test_saved.py::"
UNNEEDED = "tests/agent/test_templates_unneeded.py::"
KEY = "tests/agent/template/test_key.py::"
PARTS = "tests/main/test_parts.py::"

IMAGE_TEMPLATE_FAULTS = (
    Mutation(
        "template-of-another-app",
        "an app with the image of another one",
        "its containers are forked from the other's template",
        (Change(f"{TEMPLATE}key.py", '            "app": request.app_id,\n', ""),),
        {f"{IMAGES}test_other_apps_and_other_variables_share_none[{{'app_id': 'ap-00000002'}}]": '== "plain"'},
    ),
    Mutation(
        "ids-of-the-function",
        "a clone of a template of all functions",
        "it is to have its function's ids, which the template has not",
        (Change(f"{TEMPLATE}cells.py", "range_owner=owner)", 'range_owner="")'),),
        {f"{IMAGES}test_the_second_function_of_an_app_is_forked_at_its_first_start": "template.id_range"},
    ),
    Mutation(
        "files-of-the-first-function",
        "files that an interpreter loads by itself",
        "the template that all functions share does without",
        (
            Change(
                f"{TEMPLATE}early_files.py", "    stem = name.partition", "    return False\n    stem = name.partition"
            ),
        ),
        {f"{IMAGES}test_which_files_an_interpreter_may_load": "assert are_loaded("},
    ),
    Mutation(
        "settings-without-their-file",
        "a variable that names a file of the function's",
        "a library that is loaded with the interpreter goes on without the file, in forks alone",
        (Change(f"{TEMPLATE}early_files.py", " or are_named(tree, values, (home, directory))", ""),),
        {
            f"{IMAGES}test_files_that_a_variable_names_are_a_part_of_it[{{'OPENSSL_CONF': '/root/one.py'}}]": (
                'assert "/sets/" in specs'
            )
        },
    ),
    Mutation(
        "variables-that-stay",
        "the end of a function that is not forked from its template any more",
        "the template stays, with the function's variables",
        (
            Change(
                f"{TEMPLATE}templates.py",
                '            self._roster.drop_unused(app_id, "a function of its app is gone, and nobody uses it")\n',
                "",
            ),
        ),
        {f"{IMAGES}test_variables_of_a_function_whose_clones_crash_go_with_it[gone]": ('template.state == "dropped"')},
    ),
    Mutation(
        "cells-of-files-before",
        "a function whose files were edited",
        "its container begins in a cell that has the files of before",
        (Change(f"{TEMPLATE}reserve.py", "        request.mounts,\n", ""),),
        {f"{IMAGES}test_what_is_ready_for_files_that_are_edited_goes_and_the_template_stays": 'answer.path == "fork"'},
    ),
    Mutation(
        "verdict-forgotten",
        "a function that cannot be forked",
        "each of its starts makes a template and waits for it to be unfit",
        (
            Change(
                f"{TEMPLATE}roster.py",
                "self._verdicts.add(template, printable(cause), self._monotonic(), is_for_good=is_for_good)\n",
                "pass\n",
            ),
        ),
        {f"{STARTS}test_an_unfit_template_is_told_and_not_tried_again": "len(of_functions(world)) == 1"},
    ),
    Mutation(
        "superseded-kept",
        "a function with new secrets",
        "the template that holds the old ones stays",
        (Change(f"{TEMPLATE}roster.py", "        if before != key:\n", "        if before != key and False:\n"),),
        {
            f"{TEMPLATES}test_a_function_that_is_another_one_now_has_another_template[changes0]": (
                'old.state == "dropped"'
            )
        },
    ),
    Mutation(
        "shortcut-fails-start",
        "a fork that fails",
        "the start fails with it",
        (
            Change(
                "src/squall/agent/starts.py",
                "                self._templates.failed(template, error, began_at)\n",
                "                raise\n",
            ),
        ),
        {
            f"{STARTS}test_a_shortcut_that_fails_is_followed_by_the_next_one_and_leaves_nothing[failure0]": (
                "isinstance(found, tuple)"
            )
        },
    ),
    Mutation(
        "cells-of-the-agent-before",
        "an agent that begins",
        "what the one before had made ahead stays for ever",
        (
            Change(
                f"{TEMPLATE}adoption.py",
                "self._remove_left([status.container_id for status in statuses if status.is_prepared])",
                "self._remove_left([])",
            ),
        ),
        {
            f"{TEMPLATES}test_the_next_agent_adopts_templates_and_clones_and_makes_the_rest_anew": (
                "assert not made_ahead &"
            )
        },
    ),
    Mutation(
        "newest-first",
        "templates that are too much",
        "those used last go first",
        (Change(f"{TEMPLATE}memory.py", "key=lambda one: one.used_at)", "key=lambda one: -one.used_at)"),),
        {f"{MEMORY}test_those_used_longest_ago_go_first_and_no_more_than_needed": "templates[4]"},
    ),
    Mutation(
        "freed-by-name",
        "memory that clones share with their template",
        "templates are dropped for the memory that their clones hold, and none is free",
        (Change(f"{TEMPLATE}memory.py", "is_ready and not template.is_held and", "is_ready and"),),
        {f"{MEMORY}test_whose_clones_run_is_counted_and_stays_for_it_would_free_nothing": "[other, saved]"},
    ),
    Mutation(
        "held-uncounted",
        "memory that clones share with their template",
        "what clones share with a template that was dropped is counted nowhere",
        (Change(f"{TEMPLATE}template.py", "(MAKING, READY) or self.is_held", "(MAKING, READY)"),),
        {f"{MEMORY}test_whose_clones_run_is_counted_and_stays_for_it_would_free_nothing": "== 10 * MIB"},
    ),
    Mutation(
        "deploy-keeps-secrets",
        "a deploy with new secrets",
        "templates that hold the old ones stay until their functions are started",
        (Change(f"{TEMPLATE}templates.py", "            self._drop_old(app_id, functions)\n", ""),),
        {
            f"{UNNEEDED}test_templates_of_what_was_edited_go_at_once_and_those_of_what_was_not_stay": "functions_told",
        },
    ),
    Mutation(
        "deploy-drops-all",
        "a deploy that edits one function",
        "the templates of all others go with its own",
        (
            Change(
                f"{TEMPLATE}user.py",
                "functions.get(one.follows_id, math.inf) > one.version",
                "max(functions.values()) > one.version",
            ),
        ),
        {
            f"{UNNEEDED}test_templates_of_what_was_edited_go_at_once_and_those_of_what_was_not_stay": "functions_told",
            f"{UNNEEDED}test_one_of_an_image_stays_for_those_that_were_not_edited": "[OTHER]",
        },
    ),
    Mutation(
        "next-agent-drops-all",
        "a node whose agent is started again",
        "nobody knows any more what uses its image templates",
        (Change(f"{TEMPLATE}making.py", "        template.users = dict(known.users)\n", ""),),
        {f"{UNNEEDED}test_the_next_agent_knows_of_which_versions_its_templates_are[4-False]": "* stays"},
    ),
    Mutation(
        "deploy-keeps-the-disk",
        "a deploy",
        "the code of the version before stays on the disk",
        (
            Change(
                f"{TEMPLATE}templates.py",
                "        self._saved.forget_if(lambda one: one.app_id == app_id and is_old(one, functions))\n",
                "",
            ),
        ),
        {f"{SAVED}test_a_deploy_takes_what_is_of_versions_before_off_the_disk[2-False]": "== stays"},
    ),
    Mutation(
        "template-disk",
        "a snap hook that fills the disk",
        "no limit holds for it, and other containers are ended",
        (Change("src/squall/agent/agent.py", "*self.templates.writers(), ", ""),),
        {
            f"{STARTS}test_a_template_over_its_functions_disk_limit_is_unfit_and_the_function_is_not": (
                "assert not world.agent.templates"
            )
        },
    ),
    Mutation(
        "one-deadline",
        "forks that take long",
        "each attempt has all the time of the start",
        (
            Change(
                "src/squall/agent/starts.py",
                "asyncio.timeout(left_s)",
                "asyncio.timeout(None)",
            ),
        ),
        {f"{STARTS}test_all_short_paths_together_have_one_deadline": "it was not done in time"},
    ),
    Mutation(
        "template-of-another-kernel",
        "a function that is to be under gVisor now",
        "its containers are started from the template of those that were not",
        (Change(f"{TEMPLATE}key.py", '            "isolation": request.isolation,\n', ""),),
        {f"{KEY}test_what_the_guest_begins_with_is_its_own[{{'isolation': 'gvisor'}}]": "!= key("},
    ),
    Mutation(
        "template-of-another-guest",
        "an agent that starts guests by another program",
        "they are forked from a template that began by the one before",
        (Change(f"{TEMPLATE}key.py", '"guest": [self._guest_entry, library_dir]', '"guest": [library_dir]'),),
        {f"{KEY}test_what_the_guest_begins_with_is_its_own[{{'guest_entry': '/other'}}]": "!= key("},
    ),
    Mutation(
        "crowded-out",
        "templates that have nearly all the memory they may have",
        "one that was wanted once is made in the place of another one that is used as much",
        (Change(f"{TEMPLATE}templates.py", "> budget_bytes(self._config) * 9 // 10", "> budget_bytes(self._config)"),),
        {f"{IMAGES}test_where_memory_is_short_one_is_made_for_what_is_started_often": "== [False, False, True]"},
    ),
    Mutation(
        "crowded-for-ever",
        "templates that have nearly all the memory they may have",
        "what is started again and again has none, as others that nobody uses stay",
        (Change(f"{TEMPLATE}wanted.py", "self._counts.get(key, 0) >= _INSISTENT", "False"),),
        {f"{IMAGES}test_where_memory_is_short_one_is_made_for_what_is_started_often": "== [False, False, True]"},
    ),
    Mutation(
        "ready-for-all",
        "an app with many functions",
        "what is ready for each of them stays, without a bound",
        (Change(f"{TEMPLATE}templates.py", "        while len(reserves) > RESERVES_MAX:\n", "        while False:\n"),),
        {f"{IMAGES}test_what_is_ready_is_for_the_functions_that_were_started_last": "assert list(reserves) =="},
    ),
    Mutation(
        "templates-without-memory",
        "a server with SQUALL_TEMPLATE_MEMORY_MIB=0",
        "its node loads each function once more, and finds its template too large",
        (
            Change(
                "src/squall/main/parts.py",
                "PLAIN if config.template_memory_mib == 0 else config.start_path",
                "config.start_path",
            ),
        ),
        {f"{PARTS}test_a_node_whose_templates_may_have_no_memory_makes_none[0-auto-plain]": "start_path == told"},
    ),
)
