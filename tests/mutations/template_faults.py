"""Mutations of what keeps clones in their cells: each wall taken away, and the test that sees it gone."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

SUITE = "tests/kernel/test_template.py::"
VERIFICATION = "src/squall/runtime/verification.py"
SKIPS = f"{SUITE}test_clone_that_skips_a_step_is_never_told_who_it_is"
KEEPS = f"{SUITE}test_descriptors_that_lead_back_are_found"

TEMPLATE_FAULTS = (
    Mutation(
        "clone-capabilities",
        "a fork that does not give up its capabilities",
        "nobody looks at the capabilities of a clone",
        (Change(VERIFICATION, "if int(status[name], 16) & ~expected.capabilities:", "if False:"),),
        {f"{SKIPS}[drop-kept capabilities]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
    Mutation(
        "clone-filter",
        "a fork that does not wear the container's filter of system calls",
        "nobody counts the filters of a clone",
        (Change(VERIFICATION, "expected.filter_count)) < expected.filter_count:", "0)) < 0:"),),
        {f"{SKIPS}[filter-does not wear the container's filter]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
    Mutation(
        "clone-cgroups",
        "a fork that stays out of the cgroups made for it",
        "nobody looks at the cgroups of a clone",
        (Change(VERIFICATION, "or found != wanted:", "or False:"),),
        {f"{SKIPS}[cgroup-not in the cgroups]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
    Mutation(
        "clone-descriptors",
        "a fork that keeps a way back to its template",
        "nobody looks at the descriptors of a clone",
        (Change(VERIFICATION, "            _of_descriptors(pid, expected),\n", ""),),
        {f"{KEEPS}[os.open('/', os.O_RDONLY)-holds / of its template]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
    Mutation(
        "template-powerless",
        "the template holds no privilege",
        "a template has the capabilities of a container",
        (
            Change(
                "src/squall/runtime/plan.py",
                "    last: list[op.Operation] = [\n        op.DropCapabilities(()),",
                "    last: list[op.Operation] = [\n        op.DropCapabilities(kept_capabilities(spec.user)),",
            ),
        ),
        {f"{SUITE}test_template_has_no_capability_and_wears_its_filter": "== {0}"},
    ),
    Mutation(
        "template-outlived",
        "clones live on when their template ends",
        "the end of a template's program takes its clones along",
        (
            Change(
                "src/squall/runtime/templates.py",
                "if not template.pid and not _is_open(template) and not template.living:",
                "if not template.pid and not _is_open(template):",
            ),
        ),
        {f"{SUITE}test_clones_outlive_their_template": "assert await runs(forge.containers, clone)"},
    ),
    Mutation(
        "fork-strays",
        "a process that a fork leaves behind in its template",
        "strays of forks are never ended",
        (Change("src/squall/runtime/templates.py", "for pid in found & template.strays:", "for pid in set[int]():"),),
        {f"{SUITE}test_stray_of_a_fork_is_ended": "assert made.exception() is None"},
    ),
    Mutation(
        "raw-sockets",
        "no netfilter, and no raw sockets, for whoever has power over a network namespace for a moment",
        "internet sockets of every type are allowed",
        (
            Change(
                "src/squall/runtime/seccomp.py", "SOCKET_TYPES) + _return(refuse(errno.EPERM))", "()) + _return(ALLOW)"
            ),
        ),
        {f"{SUITE}test_attacks_by_a_fork_hook_with_every_capability_are_refused": "<= ITS_OWN_NETWORK | OF_THE_MOMENT"},
    ),
    Mutation(
        "older-netfilter",
        "no netfilter for whoever has power over a network namespace for a moment",
        "options of sockets that change netfilter's older tables are allowed",
        (Change("src/squall/runtime/seccomp.py", '        "setsockopt": _filter_socket_option(),\n', ""),),
        {f"{SUITE}test_attacks_by_a_fork_hook_with_every_capability_are_refused": "<= ITS_OWN_NETWORK | OF_THE_MOMENT"},
    ),
    Mutation(
        "cell-alone",
        "a second process that a fork has brought into its cell",
        "nobody looks who else is in a cell",
        (Change(VERIFICATION, "if len(inside) != 2:", "if False:"),),
        {f"{SKIPS}[alone-processes that are not its own]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
    Mutation(
        "cgroup-descriptors",
        "a fork that keeps the files by which it has entered its cgroups",
        "files of cgroups are descriptors like others",
        (Change(VERIFICATION, "in {hidden, *expected.cgroup_devices}", "in {hidden}"),),
        {f"{SKIPS}[tasks-holds .*tasks]": "pytest.raises(TemplateUnfit, match=why)"},
    ),
)
