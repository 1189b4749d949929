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
CONTAINER = "tests/sdk/test_container.py::"
STORED = "tests/server/test_store_log.py::"
WINDOWS = "tests/server/dispatch/flight/test_windows.py::"

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
    Mutation(
        "variant-lines",
        "logs of objects",
        "lines of a variant are filed under its function alone",
        (Change("src/squall/server/model/logs.py", 'spec.function_id if spec.variant_of else ""', '""'),),
        {f"{VARIANTS}test_lines_of_a_variant_are_found_by_its_id_also_when_it_is_forgotten": '["line 1"]'},
    ),
    Mutation(
        "variant-lines-left-out",
        "logs of objects",
        "lines of a function are those of its variants, too",
        (Change("src/squall/server/store/log.py", "return query.has_variants or query", "return True or query"),),
        {f"{STORED}test_lines_of_a_function_are_its_own_and_with_its_variants_when_asked": '== ["line 0"]'},
    ),
    Mutation(
        "object-alone",
        "numbers of objects",
        "what other objects of its class did counts for one without parameters",
        (
            Change(
                "src/squall/server/model/variant.py",
                "definition.is_class and any(one.is_required for one in definition.parameters)",
                "definition.is_class",
            ),
        ),
        {f"{WINDOWS}test_object_without_parameters_counts_alone_and_with_the_others_when_asked": "== (1, 2)"},
    ),
    Mutation(
        "no-method",
        "a class that was looked up",
        "an object of it has any attribute, whatever is known",
        (Change("src/squall/sdk/_object.py", "            self._squall_check(name)\n", ""),),
        {f"{CLS}test_looked_up_class_refuses_what_it_has_not_as_soon_as_that_is_known": "pytest.raises(NotFoundError"},
    ),
    Mutation(
        "no-object",
        "a class that was looked up",
        "a method without an object is no attribute",
        (Change("src/squall/sdk/cls.py", "if user_class is None and (name", "if user_class is None or (name"),),
        {f"{CLS}test_method_of_a_looked_up_class_without_an_object_is_told_how[False]": "instantiate the class first"},
    ),
    Mutation(
        "forked-child",
        "children of a container",
        "a forked child has the input of its parent",
        (Change("src/squall/sdk/_container.py", "os.register_at_fork(after_in_child=_forked)\n", ""),),
        {f"{CONTAINER}test_children_that_are_forked_run_no_input_and_call_for_theirs": "found == ((True, None, None)"},
    ),
)  # fmt: skip
