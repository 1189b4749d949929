"""Mutations of classes and variants: hooks, parameters, what is forgotten and what is not."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

GUEST = "tests/guest/test_instance.py::"
VARIANTS = "tests/server/dispatch/app/test_variants.py::"
IN_MEMORY = "src/squall/server/dispatch/app/variants.py"
RAISES = f"{GUEST}test_what_an_enter_hook_raises_is_told_with_its_traceback"
WAITS = f"{VARIANTS}test_a_call_that_waits_for_its_variant_keeps_its_order_and_may_be_closed"
GRACE = "tests/server/dispatch/fleet/test_exit_grace.py::"
CLS = "tests/sdk/test_cls.py::"

CLASS_FAULTS = (
    Mutation(
        "exit-hooks",
        "hooks of a class",
        "exit hooks are not run when the process is told to end",
        (Change("src/squall/guest/main.py", "        instance.leave()\n", "        pass\n"),),
        {f"{GUEST}test_life_of_an_instance[python]": "told[:4] =="},
    ),
    Mutation(
        "plain-few-threads",
        "several inputs at once",
        "plain methods of a class with a loop share a few threads",
        (Change("src/squall/guest/async_runner.py", "ThreadPoolExecutor(self._max_inputs,", "ThreadPoolExecutor(6,"),),
        {f"{GUEST}test_as_many_plain_methods_run_at_once_as_there_may_be[python]": "== {SUCCEEDED}"},
    ),
    Mutation(
        "exit-hooks-fork",
        "hooks of a class",
        "a forked child runs the exit hooks, too",
        (Change("src/squall/guest/instance.py", "is_entered or os.getpid() != self._pid:", "is_entered:"),),
        {f"{GUEST}test_a_forked_child_runs_no_exit_hooks[python]": '.count("bye") == 1'},
    ),
    Mutation(
        "exit-grace",
        "hooks of a class",
        "a container with exit hooks is ended as quickly as others",
        (Change("src/squall/server/dispatch/fleet/fleet.py", "        grace_s = container.grace_s(grace_s)\n", ""),),
        {f"{GRACE}test_at_the_end_of_an_app[True-30.0]": "[grace_s]"},
    ),
    Mutation(
        "enter-exception",
        "an enter hook that raises",
        "those who wait are not given the user's exception",
        (Change("src/squall/guest/main.py", 'getattr(error, "pickled", b"")', 'b""'),),
        {f"{RAISES}[python-Broken-ValueError]": "isinstance(error, kind)"},
    ),
    Mutation(
        "variant-forgotten",
        "a million objects of a class",
        "what nobody uses stays in memory",
        (Change(IN_MEMORY, "now - used_at < idle_s", "now - used_at < 10 * idle_s"),),
        {f"{VARIANTS}test_an_idle_variant_is_forgotten_and_found_again_when_it_is_called": "not in"},
    ),
    Mutation(
        "variant-busy",
        "a million objects of a class",
        "what has calls is forgotten",
        (Change(IN_MEMORY, " or dispatcher in with_calls", ""),
         Change(IN_MEMORY, " or dispatcher.containers)", ")")),
        {f"{VARIANTS}test_what_has_calls_or_containers_is_not_forgotten_for_room": '.code == "exhausted"'},
    ),
    Mutation(
        "variant-found-again",
        "a million objects of a class",
        "a call of one that was forgotten fails",
        (
            Change(
                "src/squall/server/dispatch/services.py",
                "        if target is not None and target in self._plane.apps.dispatchers:\n",
                "        if target is not None:\n",
            ),
        ),
        {WAITS: "call.outputs[index]"},
    ),
    Mutation(
        "parameters-checked",
        "wrong parameters of an object",
        "they are not refused when the object is made",
        (
            Change(
                "src/squall/sdk/cls.py",
                "check(self._name, self._user_class.givable, kwargs)",
                "str(kwargs)",
            ),
        ),
        {f"{CLS}test_an_object_is_refused_what_its_class_has_not": "pytest.raises(InvalidError"},
    ),
)  # fmt: skip
