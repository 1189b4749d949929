"""Parameters that a decorator does not have, and those that it needs, are told by name."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.sdk._parameters import INSTEAD

app = squall.App("parameters", include_source=False)
handle = squall.Function.from_name("parameters", "function")
scaled: Any = squall.Cls.from_name("parameters", "Scaled")()

WRONG: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (app.function, {"cpus": 1}, r"@app.function\(cpus=…\): .* did you mean cpu=\? It takes image=, schedule=, env="),
    (app.function, {"Timeout": 1}, r"did you mean timeout=\?"),
    (app.function, {"zzz": "red"}, r"@app.function\(zzz=…\): there is no such parameter; it takes image="),
    (app.function, {"keep_warm": 1}, "write min_containers="),
    (app.function, {"concurrency_limit": 1}, "write max_containers="),
    (app.function, {"container_idle_timeout": 1}, "write scaledown_window="),
    (app.function, {"allow_concurrent_inputs": 9}, r"put @squall.concurrent\(max_inputs=…\) below"),
    (app.function, {"network_file_systems": {}}, "write volumes="),
    (app.cls, {"keep_warm": 1}, r"@app.cls\(keep_warm=…\): .* write min_containers="),
    (app.cls, {"schedule": None}, "put it on a function that calls the class"),
    (app.local_entrypoint, {"nam": "a"}, "did you mean name="),
    (squall.concurrent, {"max_input": 1}, r"@squall.concurrent\(max_input=…\): .* did you mean max_inputs="),
    (squall.batched, {"max_batch_size": 1}, r"@squall.batched\(\) needs wait_ms=; it takes max_batch_size=, wait_ms="),
    (squall.batched, {}, "needs max_batch_size= and wait_ms="),
    (squall.batched, {"max_size": 4, "wait_ms": 1}, "did you mean max_batch_size="),
    (squall.method, {"is_generater": True}, "did you mean is_generator="),
    (squall.enter, {"snapshot": True}, "did you mean snap="),
    (squall.exit, {"timeout": 3}, r"@squall.exit\(timeout=…\): there is no such parameter; it takes none"),
    (squall.parameter, {"defalt": 3}, "did you mean default="),
    (squall.Retries, {"max_retrys": 3}, "did you mean max_retries="),
    (squall.Retries, {}, r"squall.Retries\(\) needs max_retries="),
    (squall.Period, {"hour": 3}, "did you mean hours="),
    (handle.with_options, {"cpus": 3}, r"\.with_options\(cpus=…\): .* did you mean cpu="),
    (handle.with_options, {"min_containers": 3}, r"write .autoscaler.update\(min_containers=…\)"),
    (handle.with_concurrency, {"max_input": 3}, "did you mean max_inputs="),
    (handle.with_batching, {"wait_ms": 3}, r"\.with_batching\(\) needs max_batch_size="),
    (squall.App, {"nam": "a"}, r"squall.App\(nam=…\): .* did you mean name=\? It takes name=, tags=, image="),
    (squall.Cron, {"tz": "UTC"}, r"squall.Cron\(tz=…\): .*; it takes cron_string=, timezone="),
    (squall.Cron, {"timezone": "UTC"}, r"squall.Cron\(\) needs cron_string="),
    (squall.Cron, {}, r"squall.Cron\(\) needs cron_string="),
    (
        handle.autoscaler.update,
        {"min_container": 1},
        r"\.autoscaler\.update\(min_container=…\): .* mean min_containers=",
    ),
    (lambda **given: asyncio.run(handle.autoscaler.update.aio(**given)), {"keep_warm": 1}, "it takes min_containers="),
    (
        scaled.update_autoscaler,
        {"max_container": 1},
        r"\.update_autoscaler\(max_container=…\): .* mean max_containers=",
    ),
    (app.run, {"detached": True}, r"app\.run\(detached=…\): .* did you mean detach="),
    (app.deploy, {"environment": "a"}, r"app\.deploy\(environment=…\): .* did you mean environment_name="),
    (squall.App.lookup, {"name": "a", "create": True}, r"App\.lookup\(create=…\): there is no such parameter"),
    (squall.App.lookup, {}, r"App\.lookup\(\) needs name="),
    (squall.Function.from_name, {"app_name": "a"}, r"Function\.from_name\(\) needs name="),
    (squall.Function.from_name, {"app_name": "a", "name": "b", "versio": 1}, "did you mean version="),
    (squall.Cls.from_name, {"app_name": "a", "name": "b", "environment": "c"}, "did you mean environment_name="),
]


@pytest.mark.parametrize(("call", "given", "message"), WRONG)
@pytest.mark.parametrize("kind", [InvalidError, TypeError])
def test_a_wrong_name_is_told_with_the_right_one(
    call: Callable[..., Any], given: dict[str, Any], message: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=message):
        call(**given)


def test_values_without_a_name_are_told_to_have_one() -> None:
    calls: list[Any] = [
        squall.batched,
        squall.concurrent,
        squall.method,
        squall.enter,
        squall.exit,
        squall.parameter,
        squall.Retries,
        squall.Period,
        handle.with_options,
        handle.with_concurrency,
        handle.with_batching,
        handle.autoscaler.update,
        scaled.update_autoscaler,
        app.run,
        app.deploy,
    ]
    for call in calls:
        with pytest.raises(InvalidError, match="give parameters by name: "):
            call(1, 2, 3)
    with pytest.raises(InvalidError, match="with parentheses"):
        app.function(lambda: None)


def test_what_needs_no_name_is_given_once_and_nothing_more_is() -> None:
    makers: list[tuple[Any, tuple[Any, ...], str]] = [
        (squall.App, ("a", "b"), r"squall\.App\(\): only name= can be given without a name, .*: tags=, image="),
        (squall.Cron, ("* * * * *", "UTC", 3), "it takes cron_string= and timezone= and nothing more"),
        (squall.App.lookup, ("a", "b"), "only name= can be given without"),
        (
            squall.Function.from_name,
            ("a", "b", 3),
            "only app_name= and name= can be given without a name, .*: version=",
        ),
        (squall.Cls.from_name, ("a", "b", 3), "only app_name= and name= can be given without a name, .*: version="),
    ]
    for make, values, message in makers:
        with pytest.raises(InvalidError, match=message):
            make(*values)
    again: Any = squall.Cron
    with pytest.raises(InvalidError, match=r"squall\.Cron\(cron_string=…\): it is given twice, also without its name"):
        again("* * * * *", cron_string="* * * * *")


def test_a_gathering_takes_calls() -> None:
    gather: Any = squall.FunctionCall.gather
    with pytest.raises(InvalidError, match=r"takes what \.spawn\(…\) returns, not 3"):
        gather(3)
    with pytest.raises(InvalidError, match=r"write FunctionCall\.gather\(\*calls\)"):
        gather([squall.FunctionCall.from_id("fc-1")])


@pytest.mark.parametrize("what", INSTEAD)
def test_what_is_written_instead_is_not_of_a_parameter_that_there_is(what: str) -> None:
    taken: dict[str, Any] = {"@app.function": app.function, "@app.cls": app.cls, ".with_options": handle.with_options}

    assert not INSTEAD[what].keys() & inspect.signature(taken[what]).parameters.keys()


def test_right_parameters_load_nothing_that_only_wrong_ones_need() -> None:
    code = "import squall, sys; squall.App('a').function(cpu=1); print('difflib' in sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "False\n"
