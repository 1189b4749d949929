"""The autoscaler of a function or server: what it goes by, and changing that while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from squall.exception import InvalidError
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.function import INPUTS_AT_ONCE_MAX, SCALEUP_S_MAX
from squall.protocol.limits import CONTAINERS_MAX
from squall.sdk._facade import blocking
from squall.sdk._parameters import checked
from squall.sdk._server_options import whole_target
from squall.sdk._value_text import value_text
from squall.sdk.types import FunctionAutoscalerSettings, ServerAutoscalerSettings

if TYPE_CHECKING:
    from squall.sdk._client import Client

SCALEDOWN_S = (2, 3_600)


class _Keep:
    """Stands for a value that is not to change."""

    def __repr__(self) -> str:
        return "<keep>"


_KEEP = _Keep()


class Scaled(Protocol):
    """What has containers of its own: a function, or an object of a class."""

    async def scaled(self) -> tuple[Client, str]:
        """Whom to ask, and the id of its function."""


class _Autoscaler:
    """What those of functions and of servers have in common."""

    _kind = "function"

    def __init__(self, owner: Scaled, name: str) -> None:
        self._owner = owner
        self._name = name

    async def _settings(self) -> AutoscalerSettings:
        client, function_id = await self._owner.scaled()
        return await client.request("AutoscalerGet", AutoscalerGet(function_id), AutoscalerSettings)

    async def _update(self, given: dict[str, Any]) -> AutoscalerSettings:
        client, function_id = await self._owner.scaled()
        return await client.request("AutoscalerUpdate", AutoscalerUpdate(function_id, **given), AutoscalerSettings)

    def _given(
        self,
        min_containers: int | _Keep | None,
        max_containers: int | _Keep | None,
        buffer_containers: int | _Keep | None,
        scaledown_window: int | _Keep,
    ) -> dict[str, Any]:
        """What of these changes, as a server understands it.

        Raises:
            InvalidError: a value is impossible.
        """
        if isinstance(scaledown_window, bool) or not (scaledown_window is _KEEP or isinstance(scaledown_window, int)):
            raise self._wrong(f"scaledown_window={value_text(scaledown_window)} must be a whole number of seconds")
        least_s, most_s = SCALEDOWN_S
        if isinstance(scaledown_window, int) and not least_s <= scaledown_window <= most_s:
            given = value_text(scaledown_window)
            raise self._wrong(f"scaledown_window={given} must be between {least_s} and {most_s} seconds")
        least, most = self._count("min_containers", min_containers, 0), self._count("max_containers", max_containers, 1)
        if least is not None and most is not None and most < least:
            raise self._wrong(f"max_containers={most} is less than min_containers={least}")
        buffer = self._count("buffer_containers", buffer_containers, 0)
        return {
            "min_containers": 0 if min_containers is None else least,
            "max_containers": most,
            "is_unbounded": max_containers is None,
            "buffer_containers": 0 if buffer_containers is None else buffer,
            "scaledown_window_s": None if isinstance(scaledown_window, _Keep) else float(scaledown_window),
        }

    def _count(self, name: str, value: int | _Keep | None, least: int) -> int | None:
        """The number, if one is given."""
        if value is None or isinstance(value, _Keep):
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= CONTAINERS_MAX:
            raise self._wrong(
                f"{name}={value_text(value)} must be an integer from {least} to {CONTAINERS_MAX:,}, or None"
            )
        return value

    def _wrong(self, message: str) -> InvalidError:
        return InvalidError(f"{self._kind} {self._name}: autoscaler.update(): {message}")


class FunctionAutoscaler(_Autoscaler):
    """`Function.autoscaler`."""

    @blocking
    async def settings(self) -> FunctionAutoscalerSettings:
        """What the autoscaler goes by now.

        Raises:
            NotFoundError: there is no such function, or its app was stopped.
        """
        return _shown(await self._settings())

    async def update_given(
        self,
        min_containers: int | None,
        max_containers: int | None,
        buffer_containers: int | None,
        scaledown_window: int | None,
    ) -> None:
        """As `update`, for the older forms: what is None stays as it is."""
        await self.update.aio(
            min_containers=_KEEP if min_containers is None else min_containers,
            max_containers=_KEEP if max_containers is None else max_containers,
            buffer_containers=_KEEP if buffer_containers is None else buffer_containers,
            scaledown_window=_KEEP if scaledown_window is None else scaledown_window,
        )

    @blocking
    @checked(".autoscaler.update")
    async def update(
        self,
        *,
        min_containers: int | _Keep | None = _KEEP,
        max_containers: int | _Keep | None = _KEEP,
        buffer_containers: int | _Keep | None = _KEEP,
        scaledown_window: int | _Keep = _KEEP,
    ) -> FunctionAutoscalerSettings:
        """Change what the autoscaler goes by, at once and until the next deploy of the app.

        What is left out stays as it is; None is 0 for `min_containers` and `buffer_containers`, and no limit for
        `max_containers`. More containers start and spare ones end as if the function had been made so.

        Raises:
            InvalidError: a value is impossible, or contradicts one that stays.
            NotFoundError: there is no such function, or its app was stopped.
        """
        given = self._given(min_containers, max_containers, buffer_containers, scaledown_window)
        return _shown(await self._update(given))


class ServerAutoscaler(_Autoscaler):
    """`Server.autoscaler`."""

    _kind = "server"

    @blocking
    async def settings(self) -> ServerAutoscalerSettings:
        """What the autoscaler goes by now.

        Raises:
            NotFoundError: there is no such server, or its app was stopped.
        """
        return _shown_of_server(await self._settings())

    @blocking
    @checked(".autoscaler.update")
    async def update(
        self,
        *,
        target_concurrency: float | _Keep | None = _KEEP,
        min_containers: int | _Keep | None = _KEEP,
        max_containers: int | _Keep | None = _KEEP,
        buffer_containers: int | _Keep | None = _KEEP,
        scaledown_window: int | _Keep = _KEEP,
        scaleup_window: float | _Keep = _KEEP,
    ) -> ServerAutoscalerSettings:
        """Change what the autoscaler goes by, at once and until the next deploy of the app; as that of a function.

        None for `target_concurrency` is as many requests as a container may be given at once. Part of a request counts
        as one more.

        Raises:
            InvalidError: a value is impossible, or contradicts one that stays.
            NotFoundError: there is no such server, or its app was stopped.
        """
        given = self._given(min_containers, max_containers, buffer_containers, scaledown_window)
        given["target_inputs"] = self._target(target_concurrency)
        given["is_untargeted"] = target_concurrency is None
        given["scaleup_window_s"] = self._scaleup(scaleup_window)
        return _shown_of_server(await self._update(given))

    def _target(self, value: float | _Keep | None) -> int | None:
        if value is None or isinstance(value, _Keep):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= INPUTS_AT_ONCE_MAX:
            what = f"a number above 0, at most {INPUTS_AT_ONCE_MAX:,}, or None"
            raise self._wrong(f"target_concurrency={value_text(value)} must be {what}")
        return whole_target(value)

    def _scaleup(self, value: float | _Keep) -> float | None:
        if isinstance(value, _Keep):
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= SCALEUP_S_MAX:
            raise self._wrong(f"scaleup_window={value_text(value)} must be a number of seconds up to {SCALEUP_S_MAX:g}")
        return float(value)


def _shown(settings: AutoscalerSettings) -> FunctionAutoscalerSettings:
    return FunctionAutoscalerSettings(
        settings.min_containers,
        settings.max_containers,
        round(settings.scaledown_window_s),
        settings.buffer_containers,
    )


def _shown_of_server(settings: AutoscalerSettings) -> ServerAutoscalerSettings:
    return ServerAutoscalerSettings(
        settings.target_inputs,
        settings.min_containers,
        settings.max_containers,
        settings.buffer_containers,
        round(settings.scaleup_window_s) or None,
        round(settings.scaledown_window_s),
    )
