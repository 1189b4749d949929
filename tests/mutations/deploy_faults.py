"""Mutations of deploys: nothing half, no request lost, old code answers nothing new, and the way back stays open."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

TESTS = "tests/server/dispatch/app/test_deployments.py::"
OVERLAPS = "tests/server/dispatch/app/test_overlaps.py::"
ENVIRONMENTS = "tests/server/dispatch/app/test_environments.py::"
VARIANTS = "tests/server/dispatch/app/test_variants.py::"
ENVIRONMENT_OVERLAPS = "tests/server/dispatch/app/test_environment_overlaps.py::"
DEPLOYMENTS = "src/squall/server/dispatch/app/deployments.py"
DISPATCHER = "src/squall/server/dispatch/function/dispatcher.py"
APPS = "src/squall/server/dispatch/app/apps.py"
HELD = "src/squall/server/dispatch/app/held_version.py"
FLEET = "src/squall/server/dispatch/fleet/fleet.py"

TARGET = "src/squall/sdk/_target.py"
CALLS = "src/squall/sdk/_calls.py"
LOOKUP = "src/squall/sdk/_lookup.py"
FOUND_AGAIN = "tests/sdk/test_found_again.py::"

DEPLOY_FAULTS = (
    Mutation(
        "deploy-found-again",
        "an app that is stopped and deployed anew",
        "a handle by name stands for the app it found first, for ever",
        (Change(TARGET, "if self._is_last or not function.is_named:", "if self._is_last or function:"),),
        {f"{FOUND_AGAIN}test_the_async_forms_find_it_too": "gather(*[one.remote.aio(3)]"},
    ),
    Mutation(
        "deploy-map-twice",
        "an app that is stopped and deployed anew",
        "a map is made again though some of its inputs have begun",
        (Change(CALLS, "if refused and len(refused) == len(self._unanswered)", "if refused"),),
        {f"{FOUND_AGAIN}test_a_map_is_not_made_again_while_an_input_may_run": "refusal is None"},
    ),
    Mutation(
        "deploy-asked-together",
        "an app that is stopped and deployed anew, called by many threads",
        "each thread looks for it by itself",
        (Change(LOOKUP, "self._shared.setdefault(instead_of, mine)", "mine"),),
        {f"{FOUND_AGAIN}test_threads_that_find_it_again_do_so_together[function]": "- asked == 1"},
    ),
    Mutation(
        "deploy-run-twice",
        "an app that is stopped and deployed anew",
        "a call that may have been begun is made again",
        (Change(TARGET, "self.client.connection_count > self._sent_over", "self._sent_over < 0"),),
        {f"{FOUND_AGAIN}test_a_call_that_may_have_run_is_not_repeated": "whether it had begun"},
    ),
    Mutation(
        "deploy-half",
        "two deploys at once",
        "deploys of one app do not take turns",
        (
            Change(
                DEPLOYMENTS,
                "            async with lock:\n                yield\n",
                "            yield\n",
            ),
        ),
        {f"{TESTS}test_two_deploys_at_once_become_versions_one_after_the_other": "[1, 2], answers"},
    ),
    Mutation(
        "deploy-again",
        "deploy answered to nobody",
        "a publish that is repeated after a break makes another version",
        (
            Change(
                DEPLOYMENTS,
                "known = _by_deploy_id(app, record.deploy_id)\n        if known is not None:\n"
                "            return self._published(app, known.version), []\n        number",
                "number",
            ),
        ),
        {f"{TESTS}test_a_publish_that_comes_again_is_the_same_version": "(first.version, False)"},
    ),
    Mutation(
        "deploy-drain",
        "deploys",
        "containers of the version before go on",
        (Change(DISPATCHER, "if one.spec.version != spec.version and not one.ending", "if one.ending"),),
        {f"{TESTS}test_rolling_lets_what_runs_finish_and_gives_what_comes_to_new_code": "len(stage.node.started) == 2"},
    ),
    Mutation(
        "deploy-restart",
        "server killed during a deploy",
        "containers of an old version are taken for ones of the new",
        (Change(FLEET, "        if version != dispatcher.spec.version:\n", "        if version < 0:\n"),),
        {f"{TESTS}test_containers_of_an_old_version_drain_after_a_restart": '(b"1", b"2")'},
    ),
    Mutation(
        "deploy-recreate",
        "deploys",
        "inputs that were cut off by deploys count as lost",
        (
            Change(
                "src/squall/server/dispatch/function/attempts.py",
                "trouble.losses += not container.is_sacrificed",
                "trouble.losses += 1",
            ),
        ),
        {f"{TESTS}test_an_input_survives_any_number_of_deploys_that_recreate": '(0, b"12")'},
    ),
    Mutation(
        "deploy-images",
        "rollback",
        "images of earlier versions are garbage",
        (
            Change(
                "src/squall/server/dispatch/image/users.py",
                "apps.setdefault(deployed.app_id, set()).update(version.image_ids)",
                "pass",
            ),
        ),
        {f"{TESTS}test_what_kept_versions_need_is_in_use": '{"im-old", "im-new"}'},
    ),
    Mutation(
        "deploy-started-twice",
        "server killed while apps are deployed",
        "what a node brings is started again",
        (
            Change(
                "src/squall/server/dispatch/fleet/nodes.py",
                "        self._fleet.cancel_replaced(adopted)\n",
                "",
            ),
        ),
        {f"{TESTS}test_containers_that_come_with_their_node_are_not_started_again": "len(stage.node.starts) == 4"},
    ),
    Mutation(
        "deploy-shadow",
        "deploys",
        "a run takes the callers of what is deployed under its name",
        (Change("src/squall/server/store/memory.py", "key=lambda app: app.state != DEPLOYED", "key=lambda app: 0"),),
        {f"{TESTS}test_what_is_deployed_goes_before_a_newer_run_of_the_same_name": "deployed.app_id"},
    ),
    Mutation(
        "deploy-held",
        "function held to a version",
        "what it calls of its app is of the current version",
        (
            Change(
                "src/squall/server/dispatch/app/held_version.py",
                "        return target\n",
                "        return function_id\n",
            ),
        ),
        {
            f"{TESTS}test_calls_of_what_is_held_to_a_version_are_held_to_it[False]": (
                "assert [call.outputs[0].value for call in calls]"
            )
        },
    ),
    Mutation(
        "deploy-held-spawn",
        "function held to a version",
        "what it spawns is of the current version",
        (
            Change(
                "src/squall/server/dispatch/methods.py",
                """        record = replace(record, function_id=await self._held(caller, record.function_id))
        dispatcher = await self._spawned(caller, "CallSpawnMany\"""",
                """        dispatcher = await self._spawned(caller, "CallSpawnMany\"""",
            ),
        ),
        {
            f"{TESTS}test_calls_of_what_is_held_to_a_version_are_held_to_it[False]": (
                "assert stage.store._outputs[call_id][0].value"
            )
        },
    ),
    Mutation(
        "held-in-templates-not",
        "a snap hook of a function that is held to a version",
        "what it spawns is of the current version",
        (
            Change(
                "src/squall/server/dispatch/methods.py",
                "        return function_id if caller.held is None else await caller.held.find(function_id)\n",
                """        inside = caller.client.container_id if caller.client is not None else ""
        if caller.held is None or inside not in self._plane.fleet.containers:
            return function_id
        return await caller.held.find(function_id)
""",
            ),
        ),
        {
            f"{TESTS}test_calls_of_what_is_held_to_a_version_are_held_to_it[True]": (
                'stage.store._outputs[call_id][0].value == b"2"'
            ),
        },
    ),
    Mutation(
        "deploy-held-open",
        "function held to a version",
        "what its version has not is of the current one",
        (
            Change(
                "src/squall/server/dispatch/services.py",
                "            client.open(record, None, Failure(found.code if found.code in FAILURE_KINDS else INVALID, "
                "found.message))\n",
                "            self._open(client, record)\n",
            ),
        ),
        {
            f"{TESTS}test_a_call_of_what_is_held_to_a_version_fails_where_that_version_cannot_be_had": (
                "assert missing.outputs[0].status"
            )
        },
    ),
    Mutation(
        "environment-unknown",
        "environments",
        "one that there is not is taken for an empty one",
        (
            Change(
                "src/squall/server/dispatch/app/environments.py",
                "        self.check(method, kept(named))\n",
                "",
            ),
        ),
        {
            f"{ENVIRONMENTS}test_an_environment_that_there_is_not_is_refused_wherever_it_is_named": (
                'assert "did you mean'
            )
        },
    ),
    Mutation(
        "deploy-stopped",
        "app stopped while it is published",
        "the end of an app does not wait for who changes it",
        (
            Change(
                APPS,
                "        async with app.turn:\n            await self._end",
                "        if app:\n            await self._end",
            ),
        ),
        {
            f"{OVERLAPS}test_an_app_that_is_stopped_while_it_is_published_ends[ephemeral-False-publish_version]": (
                "await ended"
            )
        },
    ),
    Mutation(
        "deploy-into-deleted",
        "environment deleted while an app is deployed into it",
        "a deletion does not wait for who has entered",
        (Change("src/squall/server/dispatch/app/environments.py", "if self._entering[name]:", "if False:"),),
        {f"{ENVIRONMENT_OVERLAPS}test_what_is_deployed_meanwhile_goes_with_it[True-True]": "app_count == 1"},
    ),
    Mutation(
        "deploy-class-again",
        "deploy without a class, and back",
        "objects of a class that was forgotten meanwhile stay deleted",
        (
            Change(
                DEPLOYMENTS,
                "in app.following(spec.function_id):\n                leaving",
                "in app.following(spec.function_id) if dispatcher is not None else ():\n                leaving",
            ),
        ),
        {f"{VARIANTS}test_an_object_of_a_class_that_comes_back_while_it_runs_is_there_again": 'b"5"'},
    ),
    Mutation(
        "deploy-other-kind",
        "function becomes a generator",
        "what a deploy cut off is run by what is a generator now",
        (Change(DISPATCHER, "            self.fail([one], misfit)\n            return\n", "            pass\n"),),
        {f"{TESTS}test_what_runs_is_not_run_again_by_what_became_a_generator": "[CHANGED in one"},
    ),
    Mutation(
        "server-stop-started-again",
        "server stopped by force",
        "calls of deployed apps are left to callers that start another server",
        (
            Change(
                "src/squall/server/dispatch/server_stop.py",
                "    _fail_calls(plane, {app.app_id for app in apps if app.row.state == DEPLOYED})\n",
                "",
            ),
        ),
        {
            "tests/server/dispatch/test_server_stop.py::"
            "test_forced_stop_fails_calls_of_deployed_apps_but_those_that_are_on_disk": "list(call.outputs) == [0]"
        },
    ),
    Mutation(
        "server-stop-durable",
        "server stopped by force",
        "calls on disk fail with the others, instead of going on in the next server",
        (Change("src/squall/server/dispatch/server_stop.py", "if not call.is_durable and call.", "if call."),),
        {
            "tests/server/dispatch/test_server_stop.py::"
            "test_forced_stop_fails_calls_of_deployed_apps_but_those_that_are_on_disk": "kept is not None"
        },
    ),
)
