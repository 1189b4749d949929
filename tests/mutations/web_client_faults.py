"""Mutations of what programs say of web functions and servers, and hear of them."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

CALLS = "tests/sdk/test_web_calls.py::"
SERVERS = "tests/sdk/test_server.py::"
FUNCTION = "src/squall/sdk/function.py"

WEB_CLIENT_FAULTS = (
    Mutation(
        "web-remote",
        "a web function is called",
        "the short way of .remote calls it",
        (Change("src/squall/sdk/_remote_call.py", " and function._web is None", ""),),
        {f"{CALLS}test_no_way_of_calling_takes_a_web_function[remote]": "pytest.raises(InvalidError) as refused"},
    ),
    Mutation(
        "web-looked-up",
        "a web function is called",
        "one that was looked up is called",
        (Change(FUNCTION, "        self._web = spec.web\n", ""),),
        {f"{CALLS}test_no_way_of_calling_takes_a_web_function[spawn]": "pytest.raises(InvalidError) as refused"},
    ),
    Mutation(
        "web-localhost",
        "where a web function is found",
        "programs are given names that only browsers resolve",
        (Change("src/squall/sdk/_web_address.py", "address.path_url if", "address.url if"),),
        {f"{CALLS}test_programs_are_told_an_address_that_they_can_resolve": "/w/shop-site-dev"},
    ),
    Mutation(
        "web-object",
        "where a web function is found",
        "an object with parameters has the address of the one without",
        (Change(FUNCTION, "variant.parameters and self._method", "False"),),
        {f"{CALLS}test_objects_share_the_address_of_the_one_without_parameters": "pytest.raises(InvalidError, match="},
    ),
    Mutation(
        "web-suffix-after-restart",
        "an app that does not stay, after a restart of the server",
        "its labels end otherwise than before",
        (Change("src/squall/server/dispatch/app/apps.py", ", web_suffix=record.web_suffix,\n", ",\n"),),
        {
            "tests/server/dispatch/app/test_web_addresses.py::"
            "test_suffix_stays_over_a_restart_also_where_its_program_has_gone[detached]": '"shop-site-ann"'
        },
    ),
    Mutation(
        "web-suffix-claimed",
        "two apps want one label",
        "apps that do not stay have the labels of the deployed ones",
        (Change("src/squall/server/dispatch/app/apps.py", "self.row.web_suffix or DEV_SUFFIX", "self.row.web_suffix"),),
        {
            "tests/server/dispatch/app/test_web_addresses.py::"
            "test_suffix_is_the_programs_and_else_dev": "await labels(stage, app_id) == [(label, ASGI)]"
        },
    ),
    Mutation(
        "server-target",
        "requests of an app's server",
        "a target that is changed counts for new containers only, and not for who shares requests out",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "        self.go_by(scaling)\n        most =",
                "        self.scaling = scaling\n        most =",
            ),
        ),
        {
            "tests/server/dispatch/fleet/test_autoscaling.py::"
            "test_target_of_a_server_is_changed_for_containers_and_for_who_shares_requests_out": "== (3, 3)"
        },
    ),
    Mutation(
        "server-time-limit",
        "requests of an app's server",
        "they have a time limit",
        (Change("src/squall/sdk/_server_options.py", "        self.timeout_s = SERVER_TIMEOUT_S\n", ""),),
        {f"{SERVERS}test_record_has_what_was_asked_and_no_time_limit": "(SERVER_TIMEOUT_S, 35.0)"},
    ),
    Mutation(
        "server-token",
        "requests of an app's server",
        "anybody may send them where nothing is said",
        (Change("src/squall/sdk/_server_options.py", "is_proxy_auth_required=not ", "is_proxy_auth_required="),),
        {f"{SERVERS}test_record_of_one_of_which_nothing_is_said": 'record["web"] =='},
    ),
    Mutation(
        "web-replay",
        "a call is replayed after the end of its app",
        "the app of the replay takes the labels of others",
        (Change("src/squall/cli/call_replay.py", "        web=None,\n    )\n", "    )\n"),),
        {"tests/cli/test_web_addresses.py::test_replay_takes_no_requests": "made.web is None"},
    ),
)
