"""Mutations of how the server takes requests in, gives them to containers and answers them."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

LANE = "tests/server/ingress/test_lane.py::"
LIMITS = "tests/server/ingress/test_server_limits.py::"
LISTEN = "src/squall/server/api/listen.py"
LANE_CODE = "src/squall/server/ingress/lane.py"

WEB_SERVER_FAULTS = (
    Mutation(
        "web-idle-busy",
        "a connection has asked before",
        "it is closed while it waits for a response",
        (
            Change(
                LISTEN,
                "        self._idle_since = 0.0\n        self._is_in_head = False\n",
                "        self._is_in_head = False\n",
            ),
            Change(
                LISTEN,
                "        self._idle_since = 0.0\n        self._is_short = False\n",
                "        self._is_short = False\n",
            ),
        ),
        {
            f"{LANE}test_connection_that_asks_nothing_more_is_closed_and_one_that_waits_is_not[]": (
                "assert not slow.at_eof()"
            )
        },
    ),
    Mutation(
        "web-short-fails",
        "something fails on the short way",
        "its client is told that its request is malformed",
        (
            Change(
                LISTEN,
                "            return lane.takes(self)\n        except Exception:",
                "            return lane.takes(self)\n        except OSError:",
            ),
        ),
        {f"{LANE}test_request_that_it_fails_for_goes_the_other_way": "assert response.status_code == 200"},
    ),
    Mutation(
        "web-long-mixed-up",
        "a response turns out long while the next request has come",
        "it is answered as if it were that one",
        (
            Change(
                "src/squall/server/ingress/ingress.py",
                'scope["method"] = passing.method.decode("ascii")',
                'scope["method"] = protocol.parser.get_method().decode("ascii")',
            ),
        ),
        {f"{LANE}test_response_that_turns_out_long_is_of_its_own_request": 'b"GET /first" in first'},
    ),
    Mutation(
        "web-head-kept",
        "responses whose heads are alike",
        "the length of one body is said of all",
        (Change(LANE_CODE, 'length = b"content-length: %d\\r\\n" % len(body)', 'length = b"content-length: 1\\r\\n"'),),
        {f"{LANE}test_heads_of_responses_are_told_apart": "assert (len(response.content)"},
    ),
    Mutation(
        "web-length-lies",
        "an application says another length than its body has",
        "it is passed on",
        (Change(LANE_CODE, "elif 0 <= head.length != len(body) and", "elif False and"),),
        {f"{LANE}test_length_that_is_not_the_bodys_is_not_passed_on": 'assert response == "broken off"'},
    ),
    Mutation(
        "web-turns",
        "many requests come at once",
        "the server and the container take turns",
        (
            Change(
                "src/squall/server/dispatch/function/dispatcher.py",
                "elif self.queued >= SEND_AT:",
                "elif False:",
            ),
        ),
        {f"{LANE}test_many_requests_of_one_turn_are_handed_out_in_parts": "assert (len(handed) == 2) is"},
    ),
    Mutation(
        "web-full",
        "a server's containers have as many requests as they take",
        "more wait",
        (
            Change(
                "src/squall/server/dispatch/web/requests.py",
                "    if count >= requests_max * limit:\n",
                "    if False:\n",
            ),
        ),
        {f"{LIMITS}test_request_beyond_what_all_containers_take_is_429": "== 429"},
    ),
    Mutation(
        "web-full-early",
        "a server's containers have as many requests as they take",
        "others are refused though more containers may come",
        (
            Change(
                "src/squall/server/dispatch/web/requests.py",
                "    if limit is None:\n        return\n",
                "    limit = limit or 1\n",
            ),
        ),
        {f"{LIMITS}test_where_more_containers_may_come_requests_wait": "assert not [one.result()"},
    ),
    Mutation(
        "web-scaleup-window",
        "more demand for a server than its containers take",
        "others start at once",
        (
            Change(
                "src/squall/server/autoscaler/__init__.py",
                "    if _waits_out(load):\n        missing",
                "    if False:\n        missing",
            ),
        ),
        {f"{LIMITS}test_second_container_comes_only_for_demand_that_lasts": "<= counts"},
    ),
    Mutation(
        "web-exit-grace",
        "a server's app is stopped",
        "what its containers were given is cut short",
        (
            Change(
                "src/squall/server/dispatch/app/apps.py", "        await self._let_finish(dispatchers, failure)\n", ""
            ),
        ),
        {
            f"{LIMITS}test_what_was_given_is_finished_for_as_long_as_the_server_says[30.0-200-app]": (
                "assert answered =="
            )
        },
    ),
    Mutation(
        "web-exit-grace-over",
        "a server's app is stopped",
        "it goes on for as long as its clients like",
        (
            Change(
                "src/squall/server/dispatch/fleet/fleet.py",
                "call_later(finish_s, lambda: self.kill(container, reason, grace_s))",
                "call_later(finish_s, lambda: None)",
            ),
        ),
        {
            f"{LIMITS}test_what_was_given_is_finished_for_as_long_as_the_server_says[0.2-502-container]": (
                "assert answered =="
            )
        },
    ),
)
