"""Mutations of what the server makes of templates, and of how soon it starts containers that are quick to start."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

FLEET = "src/squall/server/dispatch/fleet/"
TEMPLATES = "tests/server/dispatch/fleet/test_templates.py::"
NODE_TEMPLATES = "tests/server/dispatch/fleet/test_node_templates.py::"
DETOURS = "tests/server/dispatch/fleet/test_detours.py::"
CALLERS = "tests/server/dispatch/client/test_callers.py::"
FAST = "tests/simulation/test_fast_starts.py::"
SCHEDULER = "tests/server/scheduler/test_scheduler.py::"
CRASHING = "tests/e2e/test_crashing_forks.py::"
DOUBT = "tests/server/dispatch/function/test_forks_in_doubt.py::"
QUARANTINE = "src/squall/server/dispatch/function/quarantine.py"
CLUSTER = "src/squall/server/scheduler/cluster.py"

SERVER_TEMPLATE_FAULTS = (
    Mutation(
        "template-of-old-code",
        "a deploy while a template loads",
        "a template of an earlier version is told what the newer one loads",
        (Change(f"{FLEET}templates.py", "    if dispatcher.spec.version != hello.version:\n", "    if False:\n"),),
        {
            f"{TEMPLATES}test_a_template_of_what_there_is_not_is_told_so_and_cut_off[version]": '== ["BootRefused"]',
        },
    ),
    Mutation(
        "template-leaves-apps",
        "a template begins what it does not end",
        "apps that code in a template has started outlive it",
        (Change(f"{FLEET}templates.py", "for callback in template.on_stopped:", "for callback in ():"),),
        {f"{TEMPLATES}test_what_a_template_began_ends_when_it_is_ready": "child_id not in stage.plane.apps.live"},
    ),
    Mutation(
        "templates-before-containers",
        "a node runs out of memory",
        "idle containers end while templates hold memory that no call waits for",
        (
            Change(
                f"{FLEET}fleet.py",
                "        if await self.free_templates(node, wanted_mib) or node.peer is None:",
                "        if node.peer is None:",
            ),
        ),
        {f"{NODE_TEMPLATES}test_when_memory_runs_out_templates_go_before_containers": "node.asked_mib == [100]"},
    ),
    Mutation(
        "templates-for-ever",
        "a node runs out of memory",
        "a node whose templates give nothing back is asked for them again and again, and nothing else is done",
        (
            Change(
                f"{FLEET}node_templates.py",
                "            return False\n        if done",
                "            return True\n        if done",
            ),
        ),
        {f"{NODE_TEMPLATES}test_a_node_that_drops_nothing_loses_an_idle_container_instead": "living(stage) == 0"},
    ),
    Mutation(
        "short-of-what-others-use",
        "a node that may use a part of its machine",
        "what other programs use of the rest counts as its shortage, for ever",
        (Change(f"{FLEET}fleet.py", "(report.memory_total_mib or node.memory_mib)", "node.memory_mib"),),
        {
            "tests/server/dispatch/test_control_plane.py::"
            "test_what_others_use_of_a_machine_that_has_it_is_no_shortage_of_its_node[10000-1]": (
                "len(stage.node.guests) == left"
            ),
        },
    ),
    Mutation(
        "plain-for-nobody",
        "a container that is asked for as no fork",
        "it outlives the input that needed it, and starts for nothing",
        (
            Change(
                f"{FLEET}scaling.py",
                "not (container.is_plain and dispatcher.quarantine.is_in_doubt)",
                "not container.is_plain",
            ),
        ),
        {
            f"{DOUBT}test_what_was_asked_for_as_plain_goes_with_the_input_that_needed_it": (
                "until(lambda: not containers(stage, spec))"
            ),
        },
    ),
    Mutation(
        "forks-go-for-nothing",
        "an app of which too many containers wait for a place",
        "its forks are ended one after the other for one that is not asked for",
        (Change(f"{FLEET}scaling.py", "        if not self._fleet.room(dispatcher):\n", "        if False:\n"),),
        {
            f"{DOUBT}test_no_fork_goes_for_one_that_may_not_be_asked_for_yet": "len(containers(stage, spec)) == 3",
        },
    ),
    Mutation(
        "detour-each-time",
        "floods of lines",
        "each start that is no copy is told, and not each cause",
        (Change(f"{FLEET}detours.py", "        told.add(cause)\n", ""),),
        {
            f"{DETOURS}test_a_cause_is_told_once_with_the_container_in_the_log_of_its_app": "lines(stage) == [TOLD]",
        },
    ),
    Mutation(
        "detour-of-forks-untold",
        "what cannot be forked with its function",
        "the user never hears that the snapshot is not used, and why",
        (Change(f"{FLEET}detours.py", "or started.has_snapshot:", "or started.path != PATH_PLAIN:"),),
        {f"{DETOURS}test_a_copy_that_is_none_of_its_function_is_told_too[fork]": "lines(stage) == [FORKED]"},
    ),
    Mutation(
        "gvisor-left-by-children",
        "code behind another kernel",
        "it leaves it by a function of its own making",
        (
            Change(
                "src/squall/server/dispatch/app/children.py",
                "    if isolation != NAMESPACES and spec.isolation != isolation:\n",
                "    if False:\n",
            ),
        ),
        {
            f"{CALLERS}test_container_behind_another_kernel_stays_behind_it": 'FunctionCreate((weaker,))) == "invalid"',
        },
    ),
    Mutation(
        "quick-starts-wait",
        "calls in turn, each in a container of its own",
        "a call waits for the next look at its function, for longer than the start takes",
        (Change(f"{FLEET}scaling.py", "URGENT_S = 0.002", "URGENT_S = 0.05"),),
        {
            f"{FAST}test_each_call_in_turn_has_a_container_of_its_own_in_the_time_of_a_start[0]": "took <= ",
            f"{FAST}test_a_burst_has_all_its_containers_within_a_few_starts[0]": "== BURST",
        },
    ),
    Mutation(
        "looks-without-end",
        "a busy function",
        "a function that has all the containers it is worth is looked at all the time",
        (Change(f"{FLEET}scaling.py", " and not dispatcher.is_provided_for\n", "\n"),),
        {
            f"{FAST}test_a_function_that_has_what_it_needs_is_not_looked_at_all_the_time[0.02]": "4 <= len(looks) <= 7",
        },
    ),
    Mutation(
        "template-elsewhere",
        "one of several nodes has the template",
        "a container is started on another one, where everything is loaded anew",
        (Change(CLUSTER, "(found := self._with_template(one)) is not None:", "(found := None) is not None:"),),
        {
            f"{SCHEDULER}test_a_node_with_its_template_comes_first[32-the emptiest]": '== ["nd-b"]',
            f"{SCHEDULER}test_a_node_with_its_template_comes_first[512-the fullest with room]": '== ["nd-b"]',
        },
    ),
    Mutation(
        "template-crowded",
        "a burst, and one of several nodes has the template",
        "all of it goes to that node, and the processors of the others have nothing to do",
        (Change(CLUSTER, "node_id if load <= self._by_load[0][0] + WARM_LOAD else None", "node_id"),),
        {
            f"{SCHEDULER}test_not_where_it_is_much_fuller_than_another_one_or_has_no_room": "15 <= nodes_of(made)",
        },
    ),
    Mutation(
        "template-that-was",
        "a node has dropped a template",
        "it is taken for having it",
        (Change("src/squall/server/scheduler/warmth.py", "in before - now:", "in ():"),),
        {
            f"{SCHEDULER}test_what_a_node_said_of_its_templates_holds_until_it_says_something_else_or_is_gone": (
                '== ["nd-a"]'
            ),
        },
    ),
    Mutation(
        "crashing-together",
        "what crashes in forks alone, three at once",
        "each counts, and the function is given up before it was loaded anew",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "        if container.asked_at > dispatcher.last_failure_at:\n",
                "        if container.asked_at:\n",
            ),
        ),
        {
            f"{CRASHING}test_function_whose_forks_crash_is_loaded_anew_before_it_is_given_up[start]": "ended.code == 0",
        },
    ),
    Mutation(
        "forks-in-doubt",
        "a call under which a fork has ended",
        "it meets all forks that wait, and fails though it runs well in a container that is none",
        (Change(QUARANTINE, "        return container.is_proven or not self._in_doubt\n", "        return True\n"),),
        {f"{DOUBT}test_forks_that_wait_use_up_one_attempt_of_an_input[4-fork]": "crashes.under"},
    ),
    Mutation(
        "forks-that-would-end",
        "forks that wait though another one has ended under its first call",
        "each of them ends under a call of its own",
        (Change(QUARANTINE, "if not (container.is_plain and one", "if True or not (container.is_plain and one"),),
        {f"{DOUBT}test_forks_that_wait_use_up_one_attempt_of_an_input[4-fork]": "not forks &"},
    ),
)
