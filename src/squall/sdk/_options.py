"""The parameters of `@app.function`, checked, as the records a server understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.protocol.limits import CONTAINERS_MAX, RETRIES_MAX
from squall.sdk._hosting import HostingAsked
from squall.sdk._not_yet import refuse_not_yet
from squall.sdk._partial import WEB
from squall.sdk._value_text import value_text
from squall.sdk.retries import Retries

if TYPE_CHECKING:
    from squall.protocol.function import Batching, FunctionOptions, RetryPolicy
    from squall.protocol.web import WebSpec
    from squall.sdk._concurrent import Concurrency
    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.schedule import Cron, Period
    from squall.sdk.secret import Secret

TIMEOUT_S_MAX = 24 * 3600
SCALEDOWN_S = (2, 3600)
CPU_MAX = 100_000
MIB_MAX = 2**30
"""A pebibyte."""
ISOLATIONS = ("namespaces", "gvisor")
"""As `protocol/function.py` has them, which is read only where an app is run."""


class _Checked:
    """Reads single values; each is refused with the name of the function and its own."""

    _name: str
    _kind = "function"
    _region = "region"
    """What the parameter is called that says where containers run."""

    def _wrong(self, text: str) -> InvalidError:
        return InvalidError(f"{self._kind} {self._name}: {text}")

    def _retries(self, retries: object) -> Retries | None:
        if retries is None or isinstance(retries, Retries):
            return retries
        if isinstance(retries, int) and not isinstance(retries, bool) and 0 <= retries <= RETRIES_MAX:
            return Retries(max_retries=retries, backoff_coefficient=1.0, initial_delay=1.0)
        whole = f"must be an integer from 0 to {RETRIES_MAX}, or squall.Retries(…)"
        raise self._wrong(f"retries={value_text(retries)} {whole}")

    def _seconds(self, name: str, value: object, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(f"{name}={value_text(value)} must be a number of seconds, from {least:g} to {most:g}")
        if not least <= value <= most:
            raise self._wrong(f"{name}={value_text(value)} must be from {least:g} to {most:g} seconds")
        return float(value)

    def _count(self, name: str, value: object, least: int, most: int = CONTAINERS_MAX) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._wrong(f"{name}={value_text(value)} must be an integer from {least} to {most:,}")
        return value

    def _window(self, value: object) -> float | None:
        least, most = SCALEDOWN_S
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            what = f"must be an integer of seconds, from {least} to {most:,}"
            raise self._wrong(f"scaledown_window={value_text(value)} {what}")
        return float(value)

    def _pair(
        self, name: str, value: object, least: float, most: float, kind: type[int | float] = float
    ) -> tuple[float | None, float | None]:
        """A request, or (request, limit); of MiB, whole ones."""
        if value is None:
            return None, None
        parts: Sequence[object] = value if isinstance(value, (tuple, list)) else (value,)
        number = "an integer" if kind is int else "a number"
        what = f"{name}={value_text(value)} must be {number} from {least:g} to {most:,}, or (request, limit)"
        if not 1 <= len(parts) <= 2:
            raise self._wrong(what)
        numbers: list[float] = []
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, (int, kind)) or not least <= part <= most:
                raise self._wrong(what)
            numbers.append(part)
        if len(numbers) == 2 and numbers[1] < numbers[0]:
            raise self._wrong(f"{name}={value_text(value)}: the limit is less than the request")
        return numbers[0], numbers[1] if len(numbers) == 2 else None

    def _one_of(self, name: str, value: object, allowed: tuple[str, ...]) -> str:
        if not isinstance(value, str) or value not in allowed:
            names = " or ".join(f'"{one}"' for one in allowed)
            raise self._wrong(f"{name}={value_text(value)} must be {names}")
        return value

    def _flag(self, name: str, value: object) -> bool:
        check_flag(name, value, f"{self._kind} {self._name}")
        return bool(value)


class Options(_Checked):
    """What a function's decorator says, besides its code and image."""

    def __init__(self, name: str, given: Mapping[str, Any], asked: Mapping[str, Any] = MappingProxyType({})) -> None:
        """`asked` is what decorators below it ask (`_partial.py`).

        Raises:
            InvalidError: a value is impossible, or of a later version.
        """
        self._name = name
        what = f"{self._kind} {name}"
        refuse_not_yet(what, given)
        self._flag("serialized", given.get("serialized", False))
        self.hosting = HostingAsked(what, given, self._region)
        self.env = check_env(given["env"], what)
        self.secrets = secrets_in(given, what) or ()
        self.volumes = volumes_in(given, what)
        self.schedule = self._schedule(given.get("schedule"))
        self.retries = self._retries(given["retries"])
        self.timeout_s = self._seconds("timeout", given["timeout"], 1, TIMEOUT_S_MAX)
        startup = given["startup_timeout"]
        self.startup_timeout_s = (
            self.timeout_s if startup is None else self._seconds("startup_timeout", startup, 1, TIMEOUT_S_MAX)
        )
        self.cpu, self.cpu_limit = self._pair("cpu", given["cpu"], 0.001, CPU_MAX)
        self.memory, self.memory_limit = self._pair("memory", given["memory"], 1, MIB_MAX, int)
        self.ephemeral_disk = self._count("ephemeral_disk", given["ephemeral_disk"], 1, MIB_MAX)
        self.min_containers = self._count("min_containers", given["min_containers"], 0) or 0
        self.max_containers = self._count("max_containers", given["max_containers"], 1)
        self.buffer_containers = self._count("buffer_containers", given["buffer_containers"], 0) or 0
        if self.max_containers is not None and self.max_containers < self.min_containers:
            raise self._wrong(f"max_containers={self.max_containers} is less than min_containers={self.min_containers}")
        self.scaledown_window_s = self._window(given["scaledown_window"]) or 60.0
        self.is_network_blocked = self._flag("block_network", given["block_network"])
        self.is_single_use = self._flag("single_use_containers", given["single_use_containers"])
        self.is_snapshot_enabled = self._flag("enable_memory_snapshot", given["enable_memory_snapshot"])
        self.isolation = self._one_of("isolation", given["isolation"], ISOLATIONS)
        self.concurrency: Concurrency | None = asked.get("concurrent")
        self.batching: Batching | None = asked.get("batched")
        self.web: WebSpec | None = next((asked[one] for one in WEB if one in asked), None)
        self._check_web()
        if self.is_single_use and self.concurrency is not None and self.concurrency.max_inputs > 1:
            raise self._wrong("single_use_containers= and @squall.concurrent() contradict each other; leave one out")
        if self.is_single_use and self.batching is not None and self.batching.max_batch_size > 1:
            raise self._wrong("single_use_containers= and @squall.batched() contradict each other; leave one out")

    def records(self) -> dict[str, Any]:
        """The fields of a `FunctionSpec` that follow from these options."""
        from squall.protocol.function import Resources, RetryPolicy, Scaling  # cold start: only where an app is run

        retries = self.retries
        return {
            "env": self.env,
            "resources": Resources(
                _milli(self.cpu),
                _milli(self.cpu_limit),
                _whole(self.memory),
                _whole(self.memory_limit),
                self.ephemeral_disk,
            ),
            "scaling": Scaling(
                min_containers=self.min_containers,
                max_containers=self.max_containers,
                buffer_containers=self.buffer_containers,
                scaledown_window_s=self.scaledown_window_s,
                is_single_use=self.is_single_use,
                **(vars(self.concurrency) if self.concurrency is not None else {}),
            ),
            "batching": self.batching,
            "retries": RetryPolicy() if retries is None else _policy(retries),
            "schedule": None if self.schedule is None else self.schedule.record(),
            "timeout_s": self.timeout_s,
            "startup_timeout_s": self.startup_timeout_s,
            "is_network_blocked": self.is_network_blocked,
            "hosting": self.hosting.record(),
            "is_snapshot_enabled": self.is_snapshot_enabled,
            "isolation": self.isolation,
            "web": self.web,
        }

    def _check_web(self) -> None:
        if self.web is None:
            return
        if self.retries is not None and self.retries.max_retries:
            raise self._wrong("retries= cannot be used on what answers requests: its clients see what came of them")
        if self.schedule is not None:
            raise self._wrong(
                "schedule= cannot be used on what answers requests; give a function of its own a schedule"
            )

    def _schedule(self, schedule: object) -> Cron | Period | None:
        if schedule is None:
            return None
        from squall.sdk.schedule import Cron, Period  # cold start: functions with a schedule only

        if isinstance(schedule, (Cron, Period)):
            return schedule
        raise self._wrong(f"schedule={value_text(schedule)} must be squall.Cron(…) or squall.Period(…)")


class VariantOptions(_Checked):
    """What `.with_options(…)` says; what is None stays as it is."""

    def __init__(self, name: str, given: Mapping[str, Any]) -> None:
        """Raises:
        InvalidError: a value is impossible, or of a later version.
        """
        self._name = f"{name}.with_options()"
        refuse_not_yet(f"function {self._name}", given)
        self.volumes = volumes_in(given, f"function {self._name}") or None
        self._hosting = HostingAsked(f"function {self._name}", given)
        self._env = None if given["env"] is None else check_env(given["env"], f"function {self._name}")
        self.secrets = secrets_in(given, f"function {self._name}")
        self._retry = self._retries(given["retries"])
        timeout = given["timeout"]
        self._timeout_s = None if timeout is None else self._seconds("timeout", timeout, 1, TIMEOUT_S_MAX)
        self._cpu = self._pair("cpu", given["cpu"], 0.001, CPU_MAX)
        self._memory = self._pair("memory", given["memory"], 1, MIB_MAX, int)
        self._most = self._count("max_containers", given["max_containers"], 1)
        self._buffer = self._count("buffer_containers", given["buffer_containers"], 0)
        self._window_s = self._window(given["scaledown_window"])

    def record(self) -> FunctionOptions:
        """As a server understands them."""
        from squall.protocol.function import FunctionOptions, Resources  # cold start: only where options are given

        sizes = (*map(_milli, self._cpu), *map(_whole, self._memory))
        return FunctionOptions(
            env=self._env,
            resources=Resources(*sizes) if any(size is not None for size in sizes) else None,
            retries=None if self._retry is None else _policy(self._retry),
            timeout_s=self._timeout_s,
            max_containers=self._most,
            buffer_containers=self._buffer,
            scaledown_window_s=self._window_s,
            hosting=self._hosting.record() if self._hosting.is_said else None,
        )


def _policy(retries: Retries) -> RetryPolicy:
    from squall.protocol.function import RetryPolicy  # cold start: only where an app is run

    return RetryPolicy(retries.max_retries, retries.backoff_coefficient, retries.initial_delay, retries.max_delay)


def _milli(value: float | None) -> int | None:
    return None if value is None else round(value * 1000)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def volumes_in(given: Mapping[str, Any], what: str) -> dict[str, Mounted]:
    """The volumes and buckets that are given, by the path each is mounted at.

    Raises:
        InvalidError: `volumes=` is wrong.
    """
    volumes = given.get("volumes")
    if volumes is None or volumes == {}:
        return {}
    from squall.sdk._volume_mounts import check_volumes  # cold start: programs with volumes only

    return check_volumes(volumes, what)


def secrets_in(given: Mapping[str, Any], what: str) -> tuple[Secret, ...] | None:
    """The secrets that are given; None where nothing is said of any.

    Raises:
        InvalidError: they are none.
    """
    secrets = given.get("secrets")
    if secrets is None or (isinstance(secrets, (list, tuple)) and not secrets):
        return secrets if secrets is None else ()
    from squall.sdk.secret import check_secrets  # cold start: programs with secrets only

    return check_secrets(secrets, what)


def check_env(env: object, what: str) -> dict[str, str]:
    """Variables as a dictionary of strings, without those that are None.

    Raises:
        InvalidError: anything else.
    """
    if env is None:
        return {}
    if not isinstance(env, dict):
        raise InvalidError(f"{what}: env must be a dictionary of strings, not {type(env).__name__}")
    found = {}
    for key, value in env.items():
        if value is None:
            continue
        if not _is_variable(key) or not _is_variable(value) or not key or "=" in key:
            raise InvalidError(
                f"{what}: env {value_text(key)}={value_text(value)} must be a name and a string, of Unicode without NUL"
            )
        found[key] = value
    return found


def _is_variable(text: object) -> bool:
    """Whether the kernel takes it as (a part of) a variable."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_flag(name: str, value: object, what: str) -> None:
    """Raises:
    InvalidError: it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise InvalidError(f"{what}: {name}={value_text(value)} must be True or False")
