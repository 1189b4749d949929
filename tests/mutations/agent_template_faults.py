"""Mutations of templates on a node: what is made of them, when, and what becomes of a start when one fails."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

AGENT = "src/squall/agent/"
STARTS = "tests/agent/test_starts.py::"
AGENTS = "tests/agent/test_agent.py::"
TEMPLATES = "tests/agent/template/test_templates.py::"
FAULTS = "tests/agent/template/test_faults.py::"
SAVED = "tests/agent/template/test_saved.py::"
KEY = "tests/agent/template/test_key.py::"
RELAY = "tests/agent/test_relay.py::"
FORCED = "tests/e2e/test_forced_paths.py::"
STARTED = "tests/server/dispatch/fleet/test_container_start.py::"

AGENT_TEMPLATE_FAULTS = (
    Mutation(
        "taken-down-too-soon",
        "a server that is stopped right after a template was dropped",
        "the template's files and network stay, and nobody takes them away",
        (Change(f"{AGENT}containers.py", "                await self._outfits.settled()\n", ""),),
        {
            f"{TEMPLATES}test_a_node_is_taken_down_when_what_was_dropped_before_is_given_back": (
                "assert not ending.done()"
            )
        },
    ),
    Mutation(
        "no-fork-ever-works",
        "every fork fails",
        "all that is to be a fork starts plainly, and works",
        (Change(f"{AGENT}starts.py", "started = await attempt(start)", 'raise OSError("no")'),),
        {f"{FORCED}test_each_start_takes_the_path_that_is_for_all[fork]": "assert [one.path for one in started]"},
    ),
    Mutation(
        "late-first-call",
        "forks that wait for long, and crash at their first call",
        "their template stays for ever, and each call ends one",
        (
            Change(
                f"{AGENT}template/faults.py",
                "        is_new = self.has_guest and not self.has_served\n",
                "        is_new = self.has_guest and not self.has_served and self.lived_s < 5.0\n",
            ),
        ),
        {
            f"{FAULTS}test_clones_that_nobody_calls_say_nothing_and_crash_at_their_first_call_as_late_as_it_comes": (
                '"unfit"'
            )
        },
    ),
    Mutation(
        "plain-start-as-evidence",
        "a function that crashes in forks alone",
        "a second call loses an attempt, too, before its template is given up",
        (Change(f"{AGENT}template/faults.py", "self._give_up(template, function_id, _CRASHED)", "pass"),),
        {f"{FAULTS}test_a_plain_start_that_serves_where_a_fork_has_crashed_is_the_verdict": "assert not world"},
    ),
    Mutation(
        "clones-at-fault",
        "clones that end at once",
        "a template whose clones all end at once is forked for ever",
        (Change(f"{AGENT}template/faults.py", "EARLY_ENDS_MAX = 2", "EARLY_ENDS_MAX = 2_000"),),
        {
            f"{STARTS}test_clones_that_end_at_once_again_and_again_speak_against_their_template": '== "plain"',
        },
    ),
    Mutation(
        "template-ends-unexplained",
        "a template that crashes, or needs more than its function may have, while it loads",
        "nobody hears of what",
        (Change(f"{AGENT}template/faults.py", "            template.ended_how = _in_words(status)\n", ""),),
        {f"{STARTS}test_what_is_the_machines_fault_is_tried_again_after_pauses_that_grow": "(exit code 1)"},
    ),
    Mutation(
        "parked-again-and-again",
        "clones that end while they wait",
        "each is made again at once, and no other function's",
        (Change(f"{AGENT}template/faults.py", "                self._rest(template)\n", ""),),
        {
            f"{STARTS}test_what_does_not_stay_while_it_waits_is_made_ever_more_seldom": "assert ",
        },
    ),
    Mutation(
        "failed-for-good",
        "a hook that meets a server which does not answer just then",
        "its function is never forked on that node any more",
        (Change(f"{AGENT}template/templates.py", "is_for_good=not report.has_failed", "is_for_good=True"),),
        {f"{STARTS}test_a_function_that_failed_to_load_once_is_forked_later": "later.has_snapshot"},
    ),
    Mutation(
        "slots-of-a-dead-template",
        "a template that ends while containers are forked from it",
        "the network of each of them is thrown away, too",
        (
            Change(
                f"{AGENT}outfit.py", "FAILURES_OF_A_SLOT = (JoinFailure,", "FAILURES_OF_A_SLOT = (JoinFailure.__base__,"
            ),
        ),
        {f"{STARTS}test_a_network_that_a_fork_cannot_enter_is_given_to_nobody[failure2-False-False]": "slots.spoiled"},
    ),
    Mutation(
        "check-in-the-place-of-its-template",
        "an agent that is killed while it checks what it has saved",
        "the next one takes the check for the template, and drops that",
        (Change(f"{AGENT}template/adoption.py", " or known.is_check", ""),),
        {
            f"{SAVED}test_one_that_was_being_checked_when_the_agent_was_killed_does_not_take_the_templates_place": (
                "== before"
            )
        },
    ),
    Mutation(
        "blamed-after-its-end",
        "a template that was ended, with much on a disk that others fill",
        "what lives in it is ended for that",
        (Change(f"{AGENT}disk.py", " if not one.writer.is_ended or size_of(one)[0]]", "]"),),
        {
            "tests/agent/test_disk.py::test_one_that_was_ended_is_not_blamed_for_a_disk_that_others_fill": (
                "assert not disk.look()"
            )
        },
    ),
    Mutation(
        "writes-after-its-end",
        "a template that writes on though it was ended",
        "nobody ends what lives in it",
        (
            Change(
                f"{AGENT}template/templates.py",
                "            return tuple(template.clones)\n",
                "            return ()\n",
            ),
        ),
        {
            f"{STARTS}test_a_template_that_goes_on_writing_though_it_was_ended_is_ended_with_its_clones": (
                "world.server.exits"
            )
        },
    ),
    Mutation(
        "parked-without-hello",
        "who is in a container and has no token",
        "whoever says that it waits is introduced as its guest",
        (Change(f"{AGENT}relay.py", "        if self._identity.is_set():\n            return False\n", ""),),
        {f"{RELAY}test_who_says_later_that_it_waits_is_not_introduced_without_a_hello[asyncio]": "not cell.server"},
    ),
    Mutation(
        "parked-unverified",
        "a fork that has not done what it was told to",
        "it is introduced before it has been looked at",
        (Change(f"{AGENT}relay.py", "known.done() and known.result() and", "known.done() and"),),
        {f"{RELAY}test_what_nobody_has_verified_is_introduced_by_its_hello_only[asyncio]": "not cell.server"},
    ),
    Mutation(
        "parked-told-early",
        "a parked clone that does not begin",
        "it is given inputs before it has said who it is",
        (
            Change(
                f"{AGENT}relay.py",
                '            self._say("Ready", ready)\n',
                '            self._say("Ready", ready)\n        self._listen_to_server()\n',
            ),
        ),
        {
            f"{RELAY}test_a_parked_guest_is_introduced_when_it_is_known_and_hears_when_it_says_hello[asyncio]": (
                "not heard.frames"
            ),
        },
    ),
    Mutation(
        "parked-never-came",
        "a parked clone that does not begin",
        "its inputs wait for it until they time out",
        (
            Change(
                "src/squall/server/dispatch/fleet/fleet.py",
                "            container.dispatcher.not_ready(container)\n",
                "            pass\n",
            ),
        ),
        {
            f"{STARTED}test_what_a_copy_was_given_that_did_not_begin_runs_in_the_one_that_is_started_in_its_place": (
                "(False, False, 1)"
            ),
        },
    ),
    Mutation(
        "parked-overtaken",
        "a parked clone that does not begin",
        "what it was given stays with it where its successor comes before its end is known",
        (
            Change(
                "src/squall/server/dispatch/fleet/fleet.py",
                "            container.peer.channel.close()\n            self._never_came(container)\n",
                "            container.peer.channel.close()\n",
            ),
        ),
        {
            f"{STARTED}test_what_a_copy_was_given_runs_in_the_next_one_that_comes_before_its_own_end_is_known": (
                "(False, False, 1)"
            ),
        },
    ),
    Mutation(
        "parked-start-without-limit",
        "a parked clone that does not begin",
        "the one in its place has what is left of its time",
        (
            Change(
                "src/squall/server/dispatch/fleet/fleet.py",
                "            self.starts.never_came(container)\n",
                "",
            ),
        ),
        {
            f"{STARTED}test_one_in_the_place_of_a_copy_that_went_after_its_node_had_answered_has_its_time_too": (
                "assert not call.outputs"
            ),
        },
    ),
    Mutation(
        "parked-counted-twice",
        "how starts came about",
        "a parked one whose node answers before its guest is there is counted twice",
        (
            Change(
                "src/squall/server/dispatch/fleet/starts.py",
                "        if container.is_serving:  #",
                "        if container.is_ready:  #",
            ),
        ),
        {
            f"{STARTED}test_a_parked_start_counts_once_whether_its_node_or_its_guest_is_the_first_to_say_so[True]": (
                "(1, {PATH_PARKED: 1})"
            ),
        },
    ),
    Mutation(
        "each-object-loaded-twice",
        "a class with parameters that cannot be forked",
        "each of its objects is loaded twice",
        (
            Change(
                f"{AGENT}template/templates.py",
                " else self._cause_of_others(family, key)\n",
                " else None\n",
            ),
        ),
        {
            f"{TEMPLATES}test_what_is_unfit_in_some_objects_of_a_class_is_not_loaded_twice_in_each": (
                "== verdicts.ALIKE_MIN"
            ),
        },
    ),
    Mutation(
        "all-objects-tried",
        "a class with parameters that cannot be forked",
        "while one of its objects is tried once more, all others are",
        (
            Change(
                f"{AGENT}template/verdicts.py",
                "            found.tried_at = now\n            return None\n",
                "            return None\n",
            ),
        ),
        {
            "tests/agent/template/test_verdicts.py::"
            "test_while_one_is_tried_and_whatever_comes_of_it_no_other_is[takes_long]": "one is enough"
        },
    ),
    Mutation(
        "fit-object-forgotten",
        "a class with parameters some objects of which can be forked",
        "one whose template went for memory is not tried any more",
        (Change(f"{AGENT}template/templates.py", "        self._verdicts.found_fit(template.family)\n", ""),),
        {f"{TEMPLATES}test_objects_are_tried_where_another_one_of_their_class_was_fit": "== 5"},
    ),
    Mutation(
        "order-by-the-wall-clock",
        "a clock that is set back",
        "the template used last is taken for the one used longest ago",
        (
            Change(
                f"{AGENT}template/templates.py",
                "        self._now = now = OrderedTimes(now)\n",
                "        self._now = now\n",
            ),
        ),
        {
            f"{TEMPLATES}test_a_clock_that_is_set_back_makes_no_template_the_one_used_longest_ago": (
                '["fu-00000001", "fu-00000003"]'
            ),
        },
    ),
    Mutation(
        "saved-in-the-future",
        "a boot with a clock in the future",
        "what was used then is never again the one used longest ago",
        (Change(f"{AGENT}template/saved.py", "        if about.used_at <= latest:\n", "        if True:\n"),),
        {
            f"{SAVED}test_a_boot_with_a_clock_in_the_future_takes_nothing_and_the_order_of_use_stays": (
                '["b", "a", "c"]'
            ),
        },
    ),
    Mutation(
        "secrets-in-keys",
        "a function with other secrets",
        "it is forked from the template that has the old ones",
        (Change(f"{AGENT}template/key.py", '            "env": request.env,\n', ""),),
        {
            f"{KEY}test_what_can_be_seen_in_a_process_makes_another_key[changes5]": "!= key(tmp_path)",
        },
    ),
    Mutation(
        "secrets-in-template-records",
        "what is written down of a template",
        "its record has the secrets of its function",
        (Change(f"{AGENT}template/record.py", "replace(template.request, env={}, secrets={})", "template.request"),),
        {f"{TEMPLATES}test_secrets_are_in_no_file_label_or_log": "value.encode() in one"},
    ),
    Mutation(
        "secrets-on-the-disk",
        "a function with variables of its own",
        "what is in the memory of its template is put on the disk",
        (
            Change(
                f"{AGENT}template/making.py",
                "template.holds_secrets = bool(request.env or request.secrets)",
                "template.holds_secrets = False",
            ),
        ),
        {
            f"{SAVED}test_what_is_quick_to_load_or_may_hold_secrets_is_not_saved[report1-changes1-100]": (
                "not on_disk(world)"
            )
        },
    ),
    Mutation(
        "saved-elsewhere",
        "a template that was saved with another kernel",
        "it is brought back all the same",
        (Change(f"{AGENT}template/saved.py", "if about.machine.get(one) != value", "if False"),),
        {f"{SAVED}test_what_was_saved_with_another_kernel_or_processor_is_dropped[kernel]": '"from_disk" not in'},
    ),
    Mutation(
        "saved-for-more",
        "a template that was saved where the processor can do more",
        "it is brought back where its libraries have chosen code that the processor lacks",
        (Change(f"{AGENT}template/machine.py", '"stepping", "flags", ', '"stepping", '),),
        {
            "tests/agent/template/test_machine.py::test_another_processor_is_another_one[fewer flags]": (
                "!= hash_of(text)"
            )
        },
    ),
    Mutation(
        "saved-and-failing",
        "a template that does not come back",
        "it is saved and fails again after each reboot, for ever",
        (
            Change(
                f"{AGENT}template/saved.py",
                "before.failure_count if before is not None else 0,\n        )",
                "0,\n        )",
            ),
        ),
        {
            f"{SAVED}test_what_does_not_come_back_is_made_anew_and_given_up_after_three_times": (
                "given up after 3 attempts"
            )
        },
    ),
    Mutation(
        "clones-before-templates",
        "an agent that begins and has no use for a template",
        "the template is ended before its clones are known, and they with it",
        (Change(f"{AGENT}template/adoption.py", "        template.clones |= clones\n", ""),),
        {
            f"{TEMPLATES}test_clones_live_on_when_the_next_agent_has_no_use_for_their_template[True]": (
                "assert agent.containers.is_running(container_id)"
            ),
        },
    ),
    Mutation(
        "clone-lost-between-agents",
        "an agent that begins and cannot take over a clone",
        "its template has that clone for ever, and is not dropped for memory",
        (
            Change(
                f"{AGENT}containers.py",
                "                    self._templates.clone_gone(record.template_id, status.container_id)\n",
                "                    pass\n",
            ),
        ),
        {
            f"{TEMPLATES}test_a_clone_that_cannot_be_taken_over_does_not_hold_its_template[True]": (
                "not template_of(world).is_held"
            ),
        },
    ),
    Mutation(
        "machines-failures",
        "forks that fail for what is the machine's",
        "they speak against the template",
        (Change(f"{AGENT}template/faults.py", "if isinstance(error, TemplateUnfit):", "if True:"),),
        {f"{FAULTS}test_failures_that_are_the_machines_do_not_speak_against_a_template": "spoken(world)"},
    ),
    Mutation(
        "verdict-without-cause",
        "forks that fail for what is in their template",
        "that they failed is told, and not of what",
        (
            Change(
                f"{AGENT}template/faults.py",
                "self._count_unfit(template, str(error), began_at)",
                'self._count_unfit(template, "", began_at)',
            ),
        ),
        {f"{FAULTS}test_forks_that_fail_one_after_the_other_are": "its child did not join"},
    ),
    Mutation(
        "unreadable-saved",
        "a node that cannot read which templates are on its disk",
        "it has none at all",
        (
            Change(
                f"{AGENT}template/saved.py",
                '                except OSError as error:\n                    _log.warning("cannot read',
                '                except ZeroDivisionError as error:\n                    _log.warning("cannot read',
            ),
        ),
        {
            f"{SAVED}test_a_node_that_cannot_read_what_is_on_its_disk_has_templates_all_the_same": (
                "raise OSError(errno.EMFILE"
            )
        },
    ),
    Mutation(
        "ended-for-want-of-files",
        "an agent that begins and can open no more files",
        "it ends the containers that it cannot take over",
        (
            Change(
                f"{AGENT}containers.py",
                "        except (ContainerMissing, FileNotFoundError) as error:\n            _log.warning",
                "        except (RuntimeFailure, OSError) as error:\n            _log.warning",
            ),
        ),
        {f"{AGENTS}test_no_container_is_ended_for_what_the_next_agent_lacks[sockets]": "set(world.slots.held)"},
    ),
    Mutation(
        "full-disk-as-failure",
        "a disk that gets full while a template is saved",
        "that counts as a failure of the template",
        (Change(f"{AGENT}template/saver.py", "if is_lacking or space.is_short_of_bytes or", "if is_lacking or"),),
        {f"{SAVED}test_a_disk_that_gets_full_while_a_template_is_saved_is_no_failure_of_it": "failure_count"},
    ),
    Mutation(
        "deleted-in-its-place",
        "what is dropped from the disk and cannot be moved away",
        "it is deleted later in the place where a good one may be by then",
        (
            Change(
                f"{AGENT}template/saved.py", "            os.rename(place, doomed)\n", "            doomed = place\n"
            ),
        ),
        {
            f"{SAVED}test_what_goes_has_another_name_at_once_and_what_cannot_be_written_leaves_nothing": (
                "in discarded] !="
            )
        },
    ),
    Mutation(
        "dump-without-limit",
        "a template that grows when it is copied to be saved",
        "what is saved of it may fill the disk",
        (
            Change(
                "src/squall/runtime/criu/launch.py",
                "                    if file_bytes_max:\n",
                "                    if False:\n",
            ),
        ),
        {
            "tests/kernel/test_saved_template.py::test_copy_that_is_larger_than_what_is_kept_for_it_is_not_saved": (
                "pytest.raises"
            )
        },
    ),
    Mutation(
        "failures-add-up",
        "forks that fail now and then",
        "they are counted over the whole life of the template, whatever succeeds in between",
        (
            Change(
                f"{AGENT}template/faults.py",
                "template.unfit_fork_count = template.rest_count = 0",
                "template.rest_count = 0",
            ),
        ),
        {f"{FAULTS}test_forks_that_fail_between_others_that_succeed_are_not_counted_together": "spoken(world)"},
    ),
    Mutation(
        "failures-beside-each-other",
        "several forks that are killed at once",
        "they count as several attempts, and the template is given up",
        (Change(f"{AGENT}template/faults.py", "        if began_at < template.failed_at:\n", "        if False:\n"),),
        {f"{FAULTS}test_forks_that_fail_beside_each_other_count_as_one": "template.is_ready"},
    ),
    Mutation(
        "killed-speaks-against-template",
        "a clone that is killed while it waits, and taken before its end is known",
        "its template is blamed",
        (
            Change(
                "src/squall/runtime/clones.py",
                'raise ContainerMissing("cannot begin a clone',
                'raise TemplateUnfit("cannot begin a clone',
            ),
            Change(
                "src/squall/runtime/clones.py",
                'raise ContainerMissing(f"cannot begin a clone',
                'raise TemplateUnfit(f"cannot begin a clone',
            ),
        ),
        {
            "tests/kernel/test_made_ahead.py::test_one_that_was_killed_while_it_waited_is_missing_to_whoever_begins": (
                "isinstance(found, ContainerMissing)"
            )
        },
    ),
    Mutation(
        "dump-limit-on-files",
        "a template with little memory that has downloaded a large file",
        "it cannot be saved, and is given up",
        (
            Change(
                "src/squall/runtime/criu/launch.py",
                "            pid_inside = _number_inside(pid)\n",
                "            pid_inside = _number_inside(pid)\n"
                "            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max or -1,) * 2)\n",
            ),
        ),
        {
            "tests/kernel/test_saved_template.py::test_files_that_it_has_written_may_be_larger_than_its_memory": (
                "exception() is None"
            )
        },
    ),
    Mutation(
        "cell-of-nobody",
        "a mistake while something is made ahead",
        "what was being forked into then stays for ever",
        (
            Change(
                f"{AGENT}template/pools.py",
                "                await self._cells.discard(cell, error)\n            raise\n",
                "                str(error)\n            raise\n",
            ),
        ),
        {
            "tests/agent/template/test_pools.py::"
            "test_a_cell_that_is_forked_into_is_thrown_away_when_another_one_ends_it_all": "discarded == [cell]"
        },
    ),
    Mutation(
        "left-out-of-the-list",
        "a class whose objects are all too large, one verdict each",
        "older templates are not in the list, and are dropped neither by name nor when their app ends",
        (
            Change(f"{AGENT}template/templates.py", "        room = max(0, NODE_TEMPLATES_MAX - len(kept))\n", ""),
            Change(f"{AGENT}template/templates.py", 'in ("", one.function_id))[:room]', 'in ("", one.function_id))'),
            Change(
                f"{AGENT}template/templates.py",
                "return tuple(_used_last((*kept, *others)))",
                "return tuple(_used_last((*kept, *others))[:NODE_TEMPLATES_MAX])",
            ),
        ),
        {f"{TEMPLATES}test_what_there_is_is_told_however_many_there_are_that_cannot_be": "assert live <= {"},
    ),
    Mutation(
        "never-saved",
        "a node that can open no more files when it is to save its first template",
        "that one is never saved",
        (
            Change(
                f"{AGENT}template/saver.py",
                "                if self._saved.is_open or not",
                "                if True or not",
            ),
        ),
        {f"{SAVED}test_it_is_saved_when_what_is_on_the_disk_can_be_read_again": "assert on_disk(world)"},
    ),
    Mutation(
        "causes-in-the-place-of-templates",
        "a node with hundreds of functions whose templates cannot be saved",
        "what is known of these takes the place of those that are on the disk",
        (Change(f"{AGENT}template/saved.py", "key=lambda one: one.size_bytes > 0)", "key=lambda one: 0)"),),
        {f"{SAVED}test_what_is_known_of_none_goes_before_what_is_there": '== ["a", "d"]'},
    ),
)
