"""Mutations of what the server makes of connections, and of bytes behind a body."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

INGRESS = "tests/server/ingress/test_ingress.py::"
PROXIED = "tests/server/ingress/test_proxied.py::"
LISTEN = "src/squall/server/api/listen.py"
CLIENT = "src/squall/server/dispatch/web/http_client.py"

CONNECTION_FAULTS = (
    Mutation(
        "trailer-header",
        "trailers are dropped",
        "an application gets trailers as headers",
        (Change(LISTEN, "self.scope_of(self.url, list(self.headers))", "self.scope_of(self.url, self.headers)"),),
        {f"{INGRESS}test_trailers_of_a_request_are_no_headers": '"x-sum" not in found'},
    ),
    Mutation(
        "trailer-endless",
        "trailers are dropped",
        "trailers that do not end are kept",
        (Change(LISTEN, "            if self._head_bytes > HEAD_BYTES_MAX:\n", "            if False:\n"),),
        {f"{INGRESS}test_endless_trailers_are_cut_off[many]": "sent < 2_000"},
    ),
    Mutation(
        "trailer-program",
        "trailers are dropped",
        "trailers of a program that do not end are kept",
        (
            Change(
                CLIENT,
                "self._head_bytes = 0 if self._has_body_come else",
                "self._head_bytes = 0 if self._is_begun else",
            ),
        ),
        {f"{PROXIED}test_endless_trailers_of_a_response_are_cut_off[many]": "sent < 5_000"},
    ),
    Mutation(
        "upgrade-body",
        "another protocol is not spoken",
        "the body of a request that asks for one is read as requests",
        (Change(LISTEN, " and _has_body(self.headers):", " and False:"),),
        {f"{INGRESS}test_other_protocol_is_not_spoken_and_takes_no_body": "refused.startswith("},
    ),
    Mutation(
        "connections-bound",
        "connections have a bound",
        "connections that are too many are kept open",
        (Change(LISTEN, "            transport.write(_FULL)\n            transport.close()\n", ""),),
        {f"{INGRESS}test_connections_have_a_bound_and_those_that_are_there_go_on": "said.startswith("},
    ),
    Mutation(
        "short-way-host",
        "an application sees the name it was asked by",
        "a request that goes the shorter way has no Host",
        (
            Change(
                "src/squall/server/ingress/lane.py",
                "                fields += (name, value)\n            elif name != b",
                "            elif name != b",
            ),
        ),
        {f"{INGRESS}test_request_by_path_and_by_name_of_a_host": 'by_path["headers"].get("host")'},
    ),
)
