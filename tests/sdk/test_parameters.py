"""Parameters that a decorator does not have, and those that it needs, are told by name."""

from __future__ import annotations

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
]


@pytest.mark.parametrize(("call", "given", "message"), WRONG)
@pytest.mark.parametrize("kind", [InvalidError, TypeError])
def test_a_wrong_name_is_told_with_the_right_one(
    call: Callable[..., Any], given: dict[str, Any], message: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=message):
        call(**given)


def test_values_without_a_name_are_told_to_have_one() -> None:
    calls: list[Any] = [squall.batched, squall.Retries, squall.Period, handle.with_concurrency]
    for call in calls:
        with pytest.raises(InvalidError, match="give parameters by name: "):
            call(1, 2, 3)
    with pytest.raises(InvalidError, match="with parentheses"):
        app.function(lambda: None)


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
