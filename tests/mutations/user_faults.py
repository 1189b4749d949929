"""Mutations of what is said and done when the user's file, values or code are at fault."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SOURCE = "tests/e2e/test_fault_source.py::"
VALUES = "tests/e2e/test_fault_values.py::"
CODE = "tests/e2e/test_fault_user_code.py::"
CHILDREN = "tests/guest/test_children.py::"
ATTEMPTS = "tests/server/dispatch/function/test_attempts.py::"

USER_FAULTS = (
    Mutation(
        "parameter-bare",
        "a parameter that is known from elsewhere",
        "a value in the place of a name is told in Python's words",
        (Change("src/squall/sdk/_parameters.py", "if len(args) > places:", "if len(args) > 99:"),),
        {"tests/sdk/test_parameters.py::test_values_without_a_name_are_told_to_have_one": "give parameters by name"},
    ),
    Mutation(
        "syntax-error",
        "syntax error in the user's file",
        "what is wrong with the file, and where, is not shown",
        (Change("src/squall/cli/reference.py", "        show_user_traceback(error)\n", ""),),
        {f"{SOURCE}test_syntax_error_is_shown_with_its_line_and_nothing_of_ours": """f'File "{program}", line '"""},
    ),
    Mutation(
        "syntax-error-frames",
        "syntax error in the user's file",
        "frames of the command are shown among the user's own",
        (
            Change(
                "src/squall/cli/reference.py",
                '    if os.environ.get("SQUALL_TRACEBACK"):\n        import',
                "    if True:\n        import",
            ),
        ),
        {
            f"{SOURCE}test_syntax_error_is_shown_with_its_line_and_nothing_of_ours": '"squall/cli" not in ended.err',
            f"{SOURCE}test_error_while_the_file_is_loaded_shows_the_users_own_frames": '"squall/cli" not in ended.err',
        },
    ),
    Mutation(
        "function-not-found",
        "function not found",
        "the nearest name is not suggested",
        (
            Change(
                "src/squall/cli/target.py",
                'return f"did you mean {close[0]!r}? " if close else ""',
                'return ""',
            ),
        ),
        {f"{SOURCE}test_function_that_is_not_there_is_named_with_the_nearest": "did you mean 'square'?"},
    ),
    Mutation(
        "function-not-found-list",
        "function not found",
        "what there is instead is not listed",
        (Change("src/squall/cli/target.py", "{hint}it has: {listed(names)}", "{hint}"),),
        {f"{SOURCE}test_function_that_is_not_there_is_named_with_the_nearest": '"main, square" in ended.err'},
    ),
    Mutation(
        "two-functions",
        "two functions of one name",
        "nobody is told that one replaces the other",
        (
            Change(
                "src/squall/sdk/app.py",
                "not _is_notebook() and _container.current() is None:",
                "_is_notebook() and _container.current() is None:",
            ),
        ),
        {f"{SOURCE}test_two_functions_of_one_name_warn_and_the_later_one_counts": "has two functions named which"},
    ),
    Mutation(
        "unpicklable-argument",
        "unpicklable argument",
        "the error does not name the argument's type",
        (
            Change(
                "src/squall/sdk/_serialization.py", "    if isinstance(value, tuple) and", "    if value is None and"
            ),
        ),
        {f"{VALUES}test_unpicklable_argument_is_named_with_its_type": "cannot pickle arguments (lock)"},
    ),
    Mutation(
        "unpicklable-result",
        "unpicklable result",
        "the error names neither the function nor that it is its result",
        (
            Change(
                "src/squall/guest/values.py",
                '            if hasattr(value, "__next__") or',
                '            if value:\n                raise\n            if hasattr(value, "__next__") or',
            ),
        ),
        {
            f"{VALUES}test_unpicklable_result_is_refused_in_the_container_and_named": "a result of type lock cannot",
        },
    ),
    Mutation(
        "large-argument",
        "argument of 200 MB (works, by blob)",
        "every chunk of a blob is read from its beginning",
        (
            Change(
                "src/squall/server/store/blob.py",
                "os.pread(file.fileno(), max(0, min(length, size - offset)), offset)",
                "os.pread(file.fileno(), max(0, min(length, size - offset)), 0)",
            ),
        ),
        {f"{VALUES}test_200_mb_argument_and_50_mb_result_arrive_unchanged": "ended.code == 0"},
    ),
    Mutation(
        "import-error-package",
        "import error inside the container",
        "the package that the image lacks is not named",
        (Change("src/squall/guest/loading.py", 'return f"{error}. {_what_to_add(error.name)}"', 'return f"{error}"'),),
        {
            f"{CODE}test_package_missing_in_the_image_is_named_with_the_users_traceback": "The image has no package",
        },
    ),
    Mutation(
        "import-error-traceback",
        "import error inside the container",
        "the caller's error has no traceback of the user's module",
        (
            Change("src/squall/guest/loading.py", "frames = trace_frames(error, skip_until=CODE_DIR)", "frames = ()"),
            Change("src/squall/guest/loading.py", "traceback=trimmed(format_for_user(error)),", 'traceback="",'),
        ),
        {
            f"{CODE}test_package_missing_in_the_image_is_named_with_the_users_traceback": "missing_package",
        },
    ),
    Mutation(
        "user-exception-type",
        "user exception",
        "it is not raised again as the type it was",
        (
            Change(
                "src/squall/sdk/_failure.py",
                'if failure.kind in ("user", "unserializable") and pickled',
                'if failure.kind == "unserializable" and pickled',
            ),
        ),
        {
            f"{CODE}test_exception_is_raised_again_as_its_own_type_with_remote_frames": "ended.code == 0",
            f"{CODE}test_exceptions_of_a_map_take_the_place_of_their_results": "ZeroDivisionError",
        },
    ),
    Mutation(
        "user-exception-frames",
        "user exception",
        "its traceback has no remote frames",
        (
            Change(
                "src/squall/sdk/_failure.py",
                "return found.with_traceback(_traceback(failure.frames, failure.container_id))",
                "return found",
            ),
        ),
        {
            f"{CODE}test_exception_is_raised_again_as_its_own_type_with_remote_frames": "in sell",
            f"{CODE}test_uncaught_exception_ends_the_command_with_its_traceback": "in divide",
        },
    ),
    Mutation(
        "user-exception-foreign",
        "user exception of a class unknown here",
        "the caller is told what could not be read and not what happened",
        (
            Change(
                "src/squall/sdk/_failure.py",
                "return ExecutionError(_described(failure, str(error)))",
                "return ExecutionError(str(error))",
            ),
        ),
        {f"{CODE}test_exception_of_a_class_unknown_here_is_described": "caught: Foreign: far away"},
    ),
    Mutation(
        "os-exit",
        "os._exit in user code",
        "a container that its input ended counts as lost, and the input is tried again and again",
        (Change("src/squall/server/policy/crash.py", "if not event.has_crashed:", "if event.has_crashed:"),),
        {f"{CODE}test_exit_and_segfault_are_clear_errors_quickly": "ended.code == 0"},
    ),
    Mutation(
        "os-exit-in-map",
        "os._exit in user code",
        "whatever else the container held fails with the input that ended it",
        (Change("src/squall/server/policy/crash.py", "event.losses < LOSSES_MAX and", "event.losses < 0 and"),),
        {f"{ATTEMPTS}test_only_the_input_that_ends_its_container_fails": "failed == [13]"},
    ),
    Mutation(
        "segfault",
        "segfault in user code",
        "the signal is not told",
        (
            Change(
                "src/squall/server/dispatch/fleet/container.py",
                "return signal_in_words(exited.signal)",
                'return "it ended"',
            ),
        ),
        {f"{CODE}test_exit_and_segfault_are_clear_errors_quickly": "SIGSEGV|signal 11|139"},
    ),
    Mutation(
        "memory-named",
        "memory over the limit",
        "the kernel's kill for want of memory looks like any other crash",
        (Change("src/squall/runtime/executor.py", "is_oom=entry.is_oom", "is_oom=False"),),
        {
            f"{CODE}test_too_much_memory_names_the_option_that_gives_more": "the container ran out of memory",
            "tests/kernel/test_container.py::test_memory_limit_ends_the_program_and_says_so": "is_oom=True",
        },
    ),
    Mutation(
        "memory-limit",
        "memory over the limit",
        "the function's memory limit is not set on its containers",
        (
            Change(
                "src/squall/agent/launch.py",
                "memory_bytes=memory_limit_mib(config, resources) * _MIB,",
                "memory_bytes=None,",
            ),
        ),
        {f"{CODE}test_too_much_memory_names_the_option_that_gives_more": "the container ran out of memory"},
    ),
    Mutation(
        "time-limit",
        "input over its time limit",
        "the error does not name the limit",
        (
            Change(
                "src/squall/server/policy/timeouts.py",
                'return f"the input ran longer than its timeout of {timeout_s:g} s; raise timeout=, or do less in one'
                ' input"',
                'return "the input was stopped"',
            ),
        ),
        {f"{CODE}test_input_over_its_time_limit_is_stopped_and_the_limit_named": "timeout="},
    ),
    Mutation(
        "hook-signals",
        "a request to end that comes in a hook of user code around a fork",
        "what Python only prints is lost",
        (Change("src/squall/guest/cancellation.py", "        sys.unraisablehook = hook\n", ""),),
        {
            f"{CHILDREN}test_request_to_end_that_comes_in_a_hook_of_user_code_is_heard[python-before]": (
                '(code, "cleaned up" in printed) == (0, True)'
            )
        },
    ),
    Mutation(
        "interruption-lost-again",
        "interruption that comes again before the thread that sends it was started",
        "it is raised where Python only prints it, and the code goes on",
        (Change("src/squall/guest/cancellation.py", "        self.forks.keep_out_of(hook.__code__)\n", ""),),
        {
            f"{CHILDREN}test_request_to_end_that_comes_again_in_a_hook_of_user_code_is_heard[python]": (
                '(code, "cleaned up" in printed) == (0, True)'
            )
        },
    ),
    Mutation(
        "forked-signals",
        "processes that user code forks",
        "forked children keep the guest's handlers of signals",
        (Change("src/squall/sdk/_fork_guard.py", "after_in_child=self._restore)", "after_in_child=self._let_go)"),),
        {f"{CHILDREN}test_forked_children_that_are_ended_at_once_are_ended[python]": "[signal.SIGTERM] * 20)"},
    ),
    Mutation(
        "failure-twice",
        "a failure is told once",
        "what the log has shown is shown again",
        (Change("src/squall/sdk/_traceback.py", "    if not has_shown(container_id, lines):\n", "    if lines:\n"),),
        {
            "tests/sdk/test_traceback.py::"
            "test_frames_of_a_container_that_have_been_shown_are_not_shown_again": "shown above"
        },
    ),
    Mutation(
        "no-result-builtin",
        "a program that polls as it did elsewhere",
        "no result yet is not the builtin TimeoutError",
        (
            Change(
                "src/squall/exception.py",
                "class OutputTimeoutError(TimeoutError, builtins.TimeoutError):",
                "class OutputTimeoutError(TimeoutError):",
            ),
        ),
        {
            "tests/test_exception.py::"
            "test_no_result_yet_is_the_builtin_timeout_and_nothing_else_of_ours_is": "OutputTimeoutError"
        },
    ),
    Mutation(
        "cell-warns",
        "blocking forms in a notebook",
        "a cell is held to what holds in an async function",
        (Change("src/squall/sdk/_facade.py", "return not is_in_cell()", "return True"),),
        {"tests/sdk/test_notebook.py::test_blocking_forms_work_in_a_cell_and_warn_of_nothing": 'remote == "9'},
    ),
    Mutation(
        "stopped-app-unnamed",
        "a call of an app that was stopped",
        "the app is not named",
        (Change("src/squall/sdk/function.py", "if named_id == unknown_id:", "if named_id == None:"),),
        {"tests/sdk/test_found_again.py::test_it_is_asked_twice_at_most": "match=STOPPED"},
    ),
    Mutation(
        "forked-children",
        "a pool of processes in an entrypoint",
        "forked children take signals as the command does",
        (Change("src/squall/sdk/_fork_guard.py", "if signal.getsignal(number) is ours:", "if False:"),),
        {"tests/cli/test_main.py::test_children_that_a_program_forks_end_by_signals_as_anywhere": "{-15, -1} set()"},
    ),
    Mutation(
        "forking-signals",
        "a signal to the command while an entrypoint forks",
        "it is handled between the functions around the fork",
        (Change("src/squall/sdk/_fork_guard.py", "if self.must_wait(frame):", "if False:"),),
        {
            "tests/cli/test_main.py::"
            "test_a_signal_that_comes_as_a_program_forks_ends_the_command_and_not_the_child[15]": "128 +"
        },
    ),
    Mutation(
        "forking-signals-again",
        "a request to end that comes twice as user code begins to fork",
        "only what interrupts the function before the fork itself is put off",
        (Change("src/squall/sdk/_fork_guard.py", "            frame = frame.f_back\n", "            break\n"),),
        {
            f"{CHILDREN}"
            "test_request_to_end_that_comes_again_as_user_code_begins_to_fork_is_heard[python]": "not in printed"
        },
    ),
    Mutation(
        "own-module",
        "a module of the user's own that the image lacks",
        "the advice is to install a package of its name",
        (Change("src/squall/sdk/_own_module.py", "if not path:", "if True:"),),
        {
            "tests/sdk/test_own_module.py::"
            "test_module_beside_the_program_is_added_and_not_installed[own_helper.py]": "It is yours"
        },
    ),
)
