"""Every wrong value of every parameter of a decorator is refused where it is written, with the parameter and what it
may be: a matrix of parameters and values."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.function import ISOLATIONS, NAMESPACES, Hosting
from squall.sdk import _options
from squall.sdk._value_text import value_text
from squall.sdk._variant_options import merged, of_options

HUGE = 10**5_000
"""Python refuses to write it out: more digits than `sys.get_int_max_str_digits`."""
SURROGATE = "a\ud800b"
"""Half a character: no UTF-8, and no file or variable, has it."""

NO_NUMBERS: dict[str, Any] = {
    "text": "1", "no text": "", "bytes": b"1", "list": [], "mapping": {}, "object": object(), "true": True,
    "false": False, "nan": math.nan, "infinite": math.inf, "less than anything": -math.inf, "complex": 1j,
    "surrogate": SURROGATE, "class": int,
}  # fmt: skip
NO_COUNTS = {**NO_NUMBERS, "fraction": 1.5, "negative": -1, "huge": HUGE, "too large": 2**63, "float": 1e300}
NO_SECONDS = {**NO_NUMBERS, "negative": -1, "zero": 0, "huge": HUGE, "too long": 86_401, "barely negative": -1e-9}
NO_FLAGS = {
    "huge": HUGE,
    "surrogate": SURROGATE,
    "text": "yes",
    "no text": "",
    "number": 1,
    "zero": 0,
    "list": [],
    "object": object(),
}
NO_NAMES = {
    "no text": "", "bytes": b"name", "number": 1, "space": "a b", "long": "a" * 65, "surrogate": SURROGATE,
    "newline": "a\n", "null": "a\0", "list": [], "true": True, "slash": "a/b",
}  # fmt: skip
NO_ENV = {
    "text": "A=1", "list": [("A", "1")], "number": 1, "value": {"A": 1}, "name": {1: "a"}, "no name": {"": "a"},
    "name with =": {"A=B": "1"}, "null": {"A": "b\0c"}, "null in name": {"A\0": "b"}, "surrogate": {"A": SURROGATE},
    "surrogate in name": {SURROGATE: "a"}, "true": True,
}  # fmt: skip
NO_PAIRS = {
    **{name: value for name, value in NO_NUMBERS.items() if name != "list"},
    "zero": 0, "negative": -1, "huge": HUGE, "three": (1, 2, 3), "nothing": (), "limit below": (2, 1),
    "limit of text": (1, "2"), "limit nan": (1, math.nan), "request nan": (math.nan, 1), "too large": 1e18,
    "limit infinite": (1, math.inf),
}  # fmt: skip
NO_RETRIES = {
    **NO_NUMBERS,
    "negative": -1,
    "fraction": 1.5,
    "huge": HUGE,
    "too many": 10_001,
    "none of ours": "Retries",
}
NO_TAGS = {"text": "a", "list": ["a"], "number": {"a": 1}, "key": {1: "a"}, "long": {"a": "b" * 64},
           "none": {"a": None}, "no text": {"": "a"}, "surrogate": {"a": SURROGATE},
           "newline": {"a": "b\n"}}  # fmt: skip

NO_REGION = {"number": 5, "list of numbers": [1], "no text": "", "list of no text": [""], "true": True,
             "mapping": {}, "long": "a" * 65, "surrogate": SURROGATE, "many": ["eu"] * 101, "huge": HUGE}  # fmt: skip
NO_GPU = {"no text": "", "number": 5, "no count": "A100:", "zero": "A100:0", "words": "A100:two",
          "fraction": "A100:1.5", "no list": [], "list": [1], "true": True, "huge": HUGE, "surrogate": SURROGATE,
          "later": "A100:2"}  # fmt: skip
NO_SECRETS = {"text": "name", "no text": "", "number": 5, "list": ["name"], "mapping": {}, "object": object(),
              "class": [squall.Secret], "one": squall.Secret.from_dict({"A": "1"})}  # fmt: skip
NO_VOLUMES = {"list": [], "text": "/data", "number": 5, "path": {1: object()}, "later": {"/data": object()}}

Wrong = Mapping[str, Any]

OF_SCALING: dict[str, Wrong] = {
    "min_containers": {**NO_COUNTS},
    "max_containers": {**NO_COUNTS, "zero": 0},
    "buffer_containers": {**NO_COUNTS},
    "scaledown_window": {**NO_SECONDS, "too short": 1, "too long": 3_601, "fraction": 2.5},
}
OF_BOTH: dict[str, Wrong] = {
    **OF_SCALING,
    "env": NO_ENV,
    "cpu": NO_PAIRS,
    "memory": {**NO_PAIRS, "fraction": 1.5, "limit of a fraction": (1, 2.5)},
    "ephemeral_disk": {**NO_COUNTS, "zero": 0},
    "retries": NO_RETRIES,
    "timeout": {**NO_SECONDS, "none": None},
    "startup_timeout": NO_SECONDS,
    "image": {"text": "debian", "number": 1, "huge": HUGE, "class": squall.Image},
    "serialized": NO_FLAGS,
    "block_network": NO_FLAGS,
    "single_use_containers": NO_FLAGS,
    "include_source": NO_FLAGS,
    "cloud": {"number": 5, "other": "nope", "no text": "", "list": ["aws"], "true": True, "surrogate": SURROGATE},
    "region": NO_REGION,
    "routing_region": {**NO_REGION, "list": ["eu"]},
    "nonpreemptible": {**NO_FLAGS, "none": None},
    "gpu": NO_GPU,
    "secrets": NO_SECRETS,
    "volumes": NO_VOLUMES,
    "proxy": {"text": "name", "no text": "", "number": 0, "false": False},
    "enable_memory_snapshot": {**NO_FLAGS, "none": None},
    "isolation": {
        "other": "docker",
        "none": None,
        "case": "gVisor",
        "list": ["gvisor"],
        "true": True,
        "number": 1,
        "surrogate": SURROGATE,
        "huge": HUGE,
    },
    "restrict_modal_access": {**NO_FLAGS, "later": True},
    "i6pn": {**NO_FLAGS, "later": True},
    "experimental_options": {"text": "a", "list": [], "key": {1: 2}, "number": 0, "later": {"a": "b"}},
}


def function(**given: Any) -> None:
    """Decorate a function."""

    def body(x: int) -> int:
        return x

    body.__qualname__ = "body"
    squall.App("matrix").function(**given)(body)


def class_(**given: Any) -> None:
    """Decorate a class."""

    class Body:
        @squall.method()
        def run(self, x: int) -> int:
            return x

    Body.__qualname__ = "Body"
    squall.App("matrix").cls(**given)(Body)


def server(**given: Any) -> None:
    """Decorate a server."""

    class Body:
        @squall.enter()
        def run(self) -> None:
            return None

    Body.__qualname__ = "Body"
    squall.App("matrix").server(**given)(Body)


def entrypoint(**given: Any) -> None:
    """Decorate a local entrypoint."""
    squall.App("matrix").local_entrypoint(**given)(lambda: None)


def batched(**given: Any) -> None:
    """Decorate a function that takes lists."""
    squall.batched(**{"max_batch_size": 4, "wait_ms": 10, **given})(lambda values: values)


def concurrent(**given: Any) -> None:
    """Decorate a function that runs several inputs."""
    squall.concurrent(**{"max_inputs": 4, **given})(lambda x: x)


def retries(**given: Any) -> None:
    """Make retries."""
    squall.Retries(**{"max_retries": 1, **given})


def parameter_of(**given: Any) -> None:
    """Decorate a class with a parameter of no type that the value has."""

    class Body:
        size: str = squall.parameter(**given)

        @squall.method()
        def run(self) -> None:
            return None

    Body.__annotations__["size"] = int if isinstance(given["default"], str) else str
    Body.__qualname__ = "Body"
    squall.App("matrix").cls()(Body)


def with_options(**given: Any) -> None:
    """A variant of a function."""
    squall.Function.from_name("matrix", "body").with_options(**given)


def update(**given: Any) -> None:
    """Change what a function is scaled by."""
    squall.Function.from_name("matrix", "body").autoscaler.update(**given)


def update_server(**given: Any) -> None:
    """The same of a server."""
    squall.Server.from_name("matrix", "Body").autoscaler.update(**given)


def update_object(**given: Any) -> None:
    """The same of an object."""
    found: Any = squall.Cls.from_name("matrix", "Body")()
    found.update_autoscaler(**given)


NO_ADDRESS: dict[str, Wrong] = {
    "label": {"number": 1, "no text": "", "space": "a b", "dash": "-a", "last dash": "a-", "long": "a" * 64,
              "dot": "a.b", "slash": "a/b", "up": "../a", "newline": "a\n", "null": "a\0", "surrogate": SURROGATE,
              "huge": HUGE, "list": ["a"], "true": True, "letters of others": "ä"},
    "custom_domains": {"text": "a.example.com", "number": 1, "numbers": [1], "no dots": ["localhost"],
                       "star": ["*.a.com"], "port": ["a.com:80"], "scheme": ["http://a.com"], "empty": [""],
                       "long": ["a" * 254 + ".com"], "surrogate": [SURROGATE], "slash": ["a.com/b"],
                       "newline": ["a.com\n"], "true": True,
                       "many": [f"a{number}.example.com" for number in range(21)], "bytes": b"a.com"},
    "requires_proxy_auth": {**NO_FLAGS, "none": None},
}  # fmt: skip
NO_PORT: Wrong = {**NO_COUNTS, "zero": 0, "more": 65_536, "none": None}
OF_SERVERS: dict[str, Wrong] = {
    "target_concurrency": {**NO_NUMBERS, "negative": -1, "more": 1_001, "huge": HUGE},
    "scaleup_window": {**NO_SECONDS, "too long": 3_601},
}
SERVER_ONLY: dict[str, Wrong] = {
    **OF_SERVERS,
    "max_concurrency": {**NO_COUNTS, "more": 1_001},
    "startup_timeout": NO_SECONDS,
    "name": NO_NAMES,
    "port": NO_PORT,
    "unauthenticated": {**NO_FLAGS, "none": None},
    "h2_enabled": {**NO_FLAGS, "none": None, "later": True},
    "exit_grace_period": {**NO_NUMBERS, "negative": -1, "more": 3_601, "huge": HUGE, "none": None},
    "compute_region": NO_REGION,
}
NOT_OF_SERVERS = {"retries", "timeout", "region", "block_network", "single_use_containers", "restrict_modal_access"}

MATRIX: dict[str, tuple[Callable[..., object], dict[str, Wrong]]] = {
    "App": (
        squall.App,
        {
            "name": NO_NAMES,
            "tags": NO_TAGS,
            "image": OF_BOTH["image"],
            "include_source": {**NO_FLAGS, "none": None},
            "secrets": NO_SECRETS,
            "volumes": NO_VOLUMES,
        },
    ),
    "app.function": (
        function,
        {**OF_BOTH, "name": NO_NAMES, "is_generator": NO_FLAGS, "schedule": {"text": "* * * * *", "number": 1}},
    ),
    "app.cls": (class_, OF_BOTH),
    "app.server": (
        server, {**{name: one for name, one in OF_BOTH.items() if name not in NOT_OF_SERVERS}, **SERVER_ONLY}
    ),
    "fastapi_endpoint": (
        squall.fastapi_endpoint,
        {
            **NO_ADDRESS,
            "method": {"number": 1, "no text": "", "other": "FETCH", "none": None, "list": ["GET"],
                       "surrogate": SURROGATE},
            "docs": {**NO_FLAGS, "none": None},
        },
    ),
    "asgi_app": (squall.asgi_app, NO_ADDRESS),
    "wsgi_app": (squall.wsgi_app, NO_ADDRESS),
    "web_server": (
        lambda **given: squall.web_server(**{"port": 8_000, **given}),
        {**NO_ADDRESS, "port": NO_PORT, "startup_timeout": {**NO_SECONDS, "none": None}},
    ),
    "Server.from_name": (
        lambda **given: squall.Server.from_name(**{"app_name": "matrix", "name": "Body", **given}),
        {
            "app_name": {**NO_NAMES, "none": None},
            "name": {"none": None, "no text": "", "number": 1, "huge": HUGE, "list": []},
            "environment_name": {name: value for name, value in NO_NAMES.items() if name != "no text"},
        },
    ),
    "server autoscaler.update": (
        update_server, {**OF_SCALING, **OF_SERVERS, "scaleup_window": {**OF_SERVERS["scaleup_window"], "none": None}}
    ),
    "app.local_entrypoint": (entrypoint, {"name": NO_NAMES}),
    "Retries": (
        retries,
        {
            "max_retries": {**NO_RETRIES, "none": None},
            "backoff_coefficient": {**NO_NUMBERS, "less": 0.99, "more": 10.01, "huge": HUGE, "none": None},
            "initial_delay": {**NO_NUMBERS, "negative": -1, "more": 60.1, "huge": HUGE, "none": None},
            "max_delay": {**NO_NUMBERS, "less": 0.9, "more": 61, "huge": HUGE, "none": None},
        },
    ),
    "batched": (
        batched,
        {
            "max_batch_size": {**NO_COUNTS, "zero": 0, "more": 1_001, "none": None},
            "wait_ms": {**NO_COUNTS, "more": 600_001, "none": None},
        },
    ),
    "concurrent": (
        concurrent,
        {
            "max_inputs": {**NO_COUNTS, "zero": 0, "none": None},
            "target_inputs": {**NO_COUNTS, "zero": 0, "more than max_inputs": 5},
        },
    ),
    "method": (lambda **given: squall.method(**given)(_method()), {"is_generator": NO_FLAGS}),
    "enter": (lambda **given: squall.enter(**given)(_method()), {"snap": {**NO_FLAGS, "none": None}}),
    "parameter": (lambda **given: squall.parameter(**given), {"init": {**NO_FLAGS, "none": None}}),
    "Cron": (
        lambda **given: squall.Cron(**{"cron_string": "* * * * *", **given}),
        {
            "cron_string": {"no text": "", "number": 1, "words": "every day", "four": "* * * *", "minute": "60 * * * *",
                            "surrogate": SURROGATE, "bytes": b"* * * * *", "none": None, "long": "* " * 5_000},
            "timezone": {"no text": "", "number": 1, "nowhere": "Mars/Base", "surrogate": SURROGATE, "none": None,
                         "path": "../../etc/passwd"},
        },
    ),
    "Period": (
        squall.Period,
        {
            **{name: {**NO_COUNTS, "none": None} for name in ("years", "months", "weeks", "days", "hours", "minutes")},
            "seconds": {**NO_NUMBERS, "negative": -1, "huge": HUGE, "none": None, "less than anything": -1e300},
        },
    ),
    "Function.from_name": (
        lambda **given: squall.Function.from_name(**{"app_name": "matrix", "name": "body", **given}),
        {
            "app_name": {**NO_NAMES, "none": None},
            "name": {"none": None, "no text": "", "number": 1, "huge": HUGE, "list": []},
            "version": {**NO_COUNTS, "zero": 0} | {"too large": -1, "float": 1.0},
            "environment_name": {name: value for name, value in NO_NAMES.items() if name != "no text"},
        },
    ),
    "App.deploy": (
        lambda **given: squall.App("matrix").deploy(**given),
        {
            "name": NO_NAMES,
            "strategy": {"none": None, "huge": HUGE, "other": "blue", "list": []},
            "tag": {"none": None, "huge": HUGE, "space": "a b", "long": "a" * 51, "surrogate": SURROGATE},
            "environment_name": {name: value for name, value in NO_NAMES.items() if name != "no text"},
        },
    ),
    "FunctionCall.get": (
        lambda **given: squall.FunctionCall.from_id("fc-matrix").get(**given),
        {
            "timeout": {**{name: value for name, value in NO_NUMBERS.items() if name != "infinite"}, "negative": -1},
            "index": {**NO_NUMBERS, "negative": -1, "fraction": 0.5, "none": None},
        },
    ),
    "autoscaler.update": (update, OF_SCALING),
    "update_autoscaler": (update_object, OF_SCALING),
    "with_concurrency": (
        lambda **given: squall.Function.from_name("matrix", "body").with_concurrency(**{"max_inputs": 4, **given}),
        {
            "max_inputs": {**NO_COUNTS, "zero": 0, "none": None},
            "target_inputs": {**NO_COUNTS, "zero": 0, "more than max_inputs": 5},
        },
    ),
    "with_batching": (
        lambda **given: squall.Function.from_name("matrix", "body").with_batching(
            **{"max_batch_size": 4, "wait_ms": 10, **given}
        ),
        {
            "max_batch_size": {**NO_COUNTS, "zero": 0, "more": 1_001, "none": None},
            "wait_ms": {**NO_COUNTS, "more": 600_001, "none": None},
        },
    ),
    "parameter of a class": (
        parameter_of,
        {"default": {**NO_NUMBERS, "huge": HUGE, "none": None}},
    ),
    "with_options": (
        with_options,
        {
            name: {key: value for key, value in wrong.items() if value is not None}
            for name, wrong in OF_BOTH.items()
            if name in inspect.signature(squall.Function.with_options).parameters
        },
    ),
}  # fmt: skip
NOTHING = dict.fromkeys(inspect.signature(squall.Function.with_options).parameters)
"""Of `.with_options`."""


def _method() -> Callable[..., None]:
    def method(self: object) -> None:
        return None

    method.__qualname__ = "Body.method"
    return method


SIGNATURES: dict[str, Any] = {
    "App": squall.App,
    "app.function": squall.App.function,
    "app.cls": squall.App.cls,
    "app.server": squall.App.server,
    "fastapi_endpoint": squall.fastapi_endpoint,
    "asgi_app": squall.asgi_app,
    "wsgi_app": squall.wsgi_app,
    "web_server": squall.web_server,
    "Server.from_name": squall.Server.from_name,
    "server autoscaler.update": type(squall.Server.from_name("matrix", "Body").autoscaler).update,
    "app.local_entrypoint": squall.App.local_entrypoint,
    "Retries": squall.Retries,
    "batched": squall.batched,
    "concurrent": squall.concurrent,
    "method": squall.method,
    "enter": squall.enter,
    "parameter": squall.parameter,
    "Cron": squall.Cron,
    "Period": squall.Period,
    "Function.from_name": squall.Function.from_name,
    "App.deploy": squall.App.deploy,
    "FunctionCall.get": squall.FunctionCall.get,
    "autoscaler.update": type(squall.Function.from_name("matrix", "body").autoscaler).update,
    "with_concurrency": squall.Function.with_concurrency,
    "with_batching": squall.Function.with_batching,
    "with_options": squall.Function.with_options,
}
"""Where the parameters of the matrix are written: what is added there fails here until it has wrong values."""
ELSEWHERE = {
    "parameter": {"default"},  # what it may be depends on the class: "parameter of a class" above
    "Function.from_name": {"client"},  # tests/sdk/test_found_again.py
    "Server.from_name": {"client"},
    "App.deploy": {"client"},
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_matrix_has_every_parameter_there_is(name: str) -> None:
    made = SIGNATURES[name]
    core = inspect.unwrap(getattr(made, "_core", made))
    there_are = {one for one in inspect.signature(core).parameters if one not in ("self", "cls") and one[0] != "_"}

    assert set(MATRIX[name][1]) == there_are - ELSEWHERE.get(name, set())


CASES = [
    pytest.param(make, parameter, wrong, id=f"{name}({parameter})")
    for name, (make, parameters) in MATRIX.items()
    for parameter, wrong in parameters.items()
]
ALLOWED = (
    "must",
    "from",
    "at least",
    "use ",
    "is less than",
    "one of",
    "takes",
    "such as",
    "more than",
    "leave it out",
)
"""One of these words says what may be given instead."""


def refusal(make: Callable[..., object], given: Wrong) -> str | None:
    """What is said of it; None where it is taken."""
    try:
        make(**given)
    except InvalidError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("make", "parameter", "wrong"), CASES)
def test_wrong_values_are_refused_with_their_parameter_and_what_it_may_be(
    make: Callable[..., object], parameter: str, wrong: Wrong
) -> None:
    for what, value in wrong.items():
        text = refusal(make, {parameter: value})

        assert text is not None, f"{what} is taken"
        assert parameter.replace("_", " ") in text.replace("_", " "), (what, text)
        assert any(word in text for word in ALLOWED), (what, text)
        assert len(text) < 1_000, f"{what} is repeated whole"
        text.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (HUGE, "<a int that cannot be shown>"),
        ("a\ud800", "'a\\ud800'"),
        ("x" * 1_000, "'" + "x" * 119 + "…"),
        (1.5, "1.5"),
    ],
    ids=["huge", "surrogate", "long", "number"],
)
def test_a_value_is_repeated_short_and_whatever_it_is(value: object, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize("decorate", [function, class_, with_options])
def test_what_is_wrong_with_retries_is_said_of_the_function(decorate: Callable[..., object]) -> None:
    text = refusal(decorate, {"retries": -1})

    assert text is not None
    assert text.startswith("function "), text
    assert "retries=-1 must be an integer from 0 to 100, or squall.Retries(…)" in text


def test_retries_of_a_class_that_only_yields_are_refused() -> None:
    class Stream:
        @squall.method()
        def items(self) -> Iterator[int]:
            yield 1

    Stream.__qualname__ = "Stream"

    with pytest.raises(InvalidError, match="class Stream: retries= must be left out where all methods are generators"):
        squall.App("matrix").cls(retries=1)(Stream)


def test_what_says_nothing_of_a_later_parameter_is_taken() -> None:
    function(secrets=[], volumes={}, experimental_options={}, i6pn=False, region=[])


def test_clouds_and_regions_are_kept_as_they_were_given() -> None:
    app = squall.App("matrix")
    app.function(name="f", serialized=True, cloud="AWS", region=["eu", "us-east"], routing_region="eu",
                 nonpreemptible=True)(lambda: None)  # fmt: skip
    options = app.registered_functions["f"]._definition.options  # type: ignore[union-attr]

    assert options.hosting.record() == Hosting("aws", ("eu", "us-east"), "eu", True)


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_what_containers_start_from_and_what_keeps_them_apart_is_told_to_the_server(isolation: str) -> None:
    app = squall.App("matrix")
    app.function(name="f", serialized=True, enable_memory_snapshot=True, isolation=isolation)(lambda: None)
    app.function(name="plain", serialized=True)(lambda: None)
    records = {name: one._definition.options.records() for name, one in app.registered_functions.items()}  # type: ignore[union-attr]

    assert (records["f"]["is_snapshot_enabled"], records["f"]["isolation"]) == (True, isolation)
    assert (records["plain"]["is_snapshot_enabled"], records["plain"]["isolation"]) == (False, NAMESPACES)


def test_isolations_are_those_of_the_protocol() -> None:
    assert _options.ISOLATIONS == ISOLATIONS


def test_clouds_and_regions_of_variants_add_up() -> None:
    asked, _ = of_options("f", {**NOTHING, "cloud": "aws", "region": "eu"})

    assert asked.hosting == Hosting("aws", ("eu",))
    assert merged(asked, of_options("f", {**NOTHING, "cloud": "gcp"})[0]).hosting == Hosting("gcp", ("eu",))
    assert of_options("f", NOTHING)[0].hosting is None
