"""Mutations of the guest in templates and their forks: what is refused, made anew, given up, or kept."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

CLONE, TEMPLATE = "src/squall/guest/clone.py", "src/squall/guest/template.py"
THREADS = "src/squall/guest/thread_counts.py"
SAFETY, RENEWAL = "src/squall/guest/fork_safety.py", "src/squall/guest/renewal.py"
SUITE = "tests/guest/test_template.py::"
RENEWALS = "tests/guest/test_renewal.py::"
ONE_NUMBER = "tests/guest/test_renewal.py::test_forks_of_one_number_draw_other_values_when_these_are_renewed"
NAMED = "tests/guest/test_fork_safety.py::test_what_cannot_be_forked_is_named"
HARMLESS = "tests/guest/test_fork_safety.py::test_what_can_be_forked_is"
READY = 'one.ready("run")'
SERVED = f"{SUITE}test_function_is_loaded_once_and_served_by_each_fork[python]"
HOOKS = "tests/guest/test_fork_hooks.py::"
COUNTS = "tests/guest/test_thread_counts.py::"

GUEST_TEMPLATE_FAULTS = (
    Mutation(
        "other-openssl",
        "a package with an OpenSSL of its own",
        "its keys are the same in all that is restored",
        (Change("src/squall/guest/renewal.py", "return (*found, *_other_openssls())", "return tuple(found)"),),
        {
            "tests/guest/test_renewal.py::test_forks_of_one_number_draw_other_values_when_these_are_renewed": (
                "same(first, second) == set()"
            ),
        },
    ),
    Mutation(
        "fork-cuda",
        "a template that has initialised CUDA",
        "it is forked all the same",
        (Change(SAFETY, "*ours, *_cuda(), ", "*ours, "),),
        {f"{NAMED}[CUDA]": '["unfit"]'},
    ),
    Mutation(
        "fork-gpu",
        "a template that has initialised CUDA",
        "it is forked all the same, if it was not torch that did so",
        (
            Change(
                SAFETY,
                ' or any(_target(number).startswith("/dev/nvidia") for number in _descriptors()):',
                ":",
            ),
        ),
        {
            "tests/guest/test_fork_safety.py::test_device_of_a_gpu_that_is_open_is_named_without_torch": "said == {",
        },
    ),
    Mutation(
        "fork-openssl",
        "two forks with the same randomness",
        "OpenSSL is not seeded anew in a fork",
        (Change(RENEWAL, "    _OPENSSL: _ssl,\n", ""),),
        {ONE_NUMBER: "== set()"},
    ),
    Mutation(
        "fork-openssl-below",
        "two forks with the same randomness",
        "OpenSSL that the guest has loaded counts as untouched, though a library of the user's has drawn from it",
        (Change(RENEWAL, "if has_user_code and _OPENSSL in untouched:", "if False:"),),
        {
            f"{RENEWALS}test_a_library_that_has_drawn_from_the_openssl_of_python_has_other_values_in_each_fork"
            "[of a function-False]": "is is_same"
        },
    ),
    Mutation(
        "fork-numpy",
        "two forks with the same randomness",
        "numpy's generator is not seeded anew in a fork",
        (Change(RENEWAL, '    "numpy.random.mtrand": _numpy,\n', ""),),
        {ONE_NUMBER: "== set()"},
    ),
    Mutation(
        "fork-torch",
        "two forks with the same randomness",
        "torch's generator is not seeded anew in a fork",
        (Change(RENEWAL, '    "torch": _torch,\n', ""),),
        {ONE_NUMBER: "== set()"},
    ),
    Mutation(
        "fork-hooks-renewed",
        "two forks with the same randomness",
        "it is made anew when hooks of user code have run",
        (
            Change(CLONE, "        kit.renewals.run_in_child()\n", ""),
            Change(CLONE, "        kit.renewals.check()\n", "        kit.renewals.run()\n"),
        ),
        {f"{HOOKS}test_hooks_of_two_forks_draw_different_values": "== set()"},
    ),
    Mutation(
        "fork-control",
        "a hook of user code that looks for what comes to its template",
        "hooks run in forks that hold the template's socket",
        (
            Change(CLONE, "        kit.control.close()\n", ""),
            Change(CLONE, "    os.setsid()\n", "    os.setsid()\n    kit.control.close()\n"),
        ),
        {f"{HOOKS}test_no_hook_of_a_fork_gets_at_the_socket_that_its_siblings_come_by": "if peeked]"},
    ),
    Mutation(
        "fork-token",
        "what the kernel shows of a fork",
        "it shows the token of the template",
        (Change(TEMPLATE, "    libc.erase_variable(ENV_TOKEN)\n", ""),),
        {f"{SUITE}test_kernel_shows_no_token_of_the_template_in_a_fork": "not in shown"},
    ),
    Mutation(
        "fork-asked",
        "proxies of what is gone, and lazy objects, in a template",
        "they are asked what they are",
        (Change(SAFETY, "if issubclass(type(one), kind)]", "if isinstance(one, kind)]"),),
        {f"{HARMLESS}[proxy of what is gone]": READY},
    ),
    Mutation(
        "fork-idle",
        "what libraries keep only to be quicker",
        "it stays open, and in the way",
        (Change(TEMPLATE, "        fork_safety.quiet()\n", ""),),
        {
            "tests/guest/test_fork_safety.py::test_idle_http_connections_are_closed_and_made_again[urllib3]": READY,
            "tests/guest/test_fork_safety.py::test_idle_http_connections_are_closed_and_made_again[httpx]": READY,
            "tests/guest/test_fork_safety.py::test_monitor_of_progress_bars_is_ended_and_begins_again": READY,
        },
    ),
    Mutation(
        "fork-cause",
        "a template that fails while it gets ready",
        "it ends without a word",
        (Change(TEMPLATE, "except Exception as error:  #", "except Unfit as error:  #"),),
        {
            "tests/guest/test_fork_safety.py::test_whatever_fails_while_it_gets_ready_is_told[unfit]": (
                "one.template.report() == said"
            )
        },
    ),
    Mutation(
        "fork-thread",
        "a template with threads",
        "threads are no obstacle",
        (Change(SAFETY, "(*_threads(watch), *_daemons()", "(*_daemons()"),),
        {f"{NAMED}[thread]": '["unfit"]'},
    ),
    Mutation(
        "fork-shared-memory",
        "two forks with one lock",
        "memory that is shared is no obstacle",
        (Change(SAFETY, ", *_shared_memory()", ""),),
        {f"{NAMED}[lock between processes]": '["unfit"]'},
    ),
    Mutation(
        "fork-hooks-once",
        "hooks of user code in a fork",
        "both forks run the hooks of user code",
        (Change(TEMPLATE, "pid = libc.fork()", "pid = os.fork()"),),
        {SERVED: 'about["hooks"]'},
    ),
    Mutation(
        "fork-position",
        "two forks that read one file",
        "forks share their position in a file with the template",
        (Change(CLONE, "        try:\n            file.open_again()\n", "        try:\n            pass\n"),),
        {SERVED: '(about["at"], about["next"])'},
    ),
    Mutation(
        "fork-freeze",
        "what a collection of garbage in a fork copies",
        "what the template has loaded is looked at by each collection in a fork",
        (Change(TEMPLATE, "        gc.freeze()\n", ""),),
        {
            "tests/guest/test_shared_memory.py::"
            "test_a_collection_in_a_fork_copies_nothing_of_what_its_template_has_loaded": 'one.call("collect")'
        },
    ),
    Mutation(
        "fork-rehearsal",
        "what is made at its first use",
        "is made in each fork",
        (
            Change(
                "src/squall/guest/rehearsal.py", "        Runner(parts).run_one(parts.inbox.take())\n", "        pass\n"
            ),
        ),
        {f"{SUITE}test_fork_finds_all_that_is_made_at_its_first_use[forked-sync]": "made == []"},
    ),
    Mutation(
        "fork-file-pages",
        "what a parked fork has of its template's files",
        "it maps them when its first input needs them",
        (
            Change(
                "src/squall/guest/file_pages.py",
                "if not libc.populate_pages(pages[number], pages[number + 1]) or",
                "if",
            ),
        ),
        {"tests/guest/test_file_pages.py::test_fork_can_have_the_pages_that_its_template_has": 'found["given"]'},
    ),
    Mutation(
        "fork-computes",
        "the first operation of a library in a parked fork",
        "it is that of its first input",
        (Change("src/squall/guest/rehearsal.py", "        _compute()\n", ""),),
        {f"{SUITE}test_parked_fork_has_computed_with_its_libraries": "copied[True] < copied[False] / 2"},
    ),
    Mutation(
        "fork-clocks",
        "what a fork says that its start has cost",
        "a fork tells its template's times as its own",
        (Change("src/squall/guest/main.py", "served.taken_over(started)", "served"),),
        {f"{SUITE}test_what_a_fork_has_cost_is_counted_from_its_own_beginning": "ready.import_ms < 500"},
    ),
    Mutation(
        "fork-environment",
        "the environment of a fork",
        "what the module has set is lost",
        (Change(CLONE, "    wanted.update(changed)\n", ""),),
        {f"{SUITE}test_environment_of_a_fork_is_its_own_with_what_the_module_has_changed": "in_python =="},
    ),
    Mutation(
        "fork-exit",
        "the end of a fork",
        "a child of user code speaks for the container",
        (Change(CLONE, "if os.getpid() == self._pid:", "if self._pid:"),),
        {f"{SUITE}test_fork_says_what_it_ends_with_and_its_children_do_not": "(child, code)"},
    ),
    Mutation(
        "fork-privileges",
        "what a fork may do",
        "a fork gives nothing up",
        (Change(CLONE, "        _drop_privileges(asked)\n", "        pass\n"),),
        {f"{SUITE}test_fork_of_another_user_keeps_nothing": '["1234"] * 4'},
    ),
    Mutation(
        "fork-thread-counts",
        "threads of numerical libraries",
        "forks compute with one thread",
        (Change(TEMPLATE, "thread_counts=self._thread_counts,", "thread_counts=(),"),),
        {f"{COUNTS}test_product_in_a_fork_uses_the_threads_that_its_environment_says": "(3, True)"},
    ),
    Mutation(
        "fork-eager-threads",
        "threads of numerical libraries",
        "threads are started with each fork",
        (Change(THREADS, "if kind.is_eager:", "if not kind:"),),
        {f"{COUNTS}test_fork_without_a_number_uses_one_thread_for_each_processor": "(threads_before, threads) == (2,"},
    ),
    Mutation(
        "template-keeps-its-token",
        "a template that is forked, and saved on the disk",
        "its token is in each fork, and on the disk",
        (Change(TEMPLATE, 'token, self._token = self._token, ""', "token = self._token"),),
        {f"{SUITE}test_nobody_holds_the_token_of_the_template_in_a_fork": "one_more == []"},
    ),
)
