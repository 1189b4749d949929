"""The autoscaler of a function: what it goes by, and changing that while the function runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from squall.exception import InvalidError
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.limits import CONTAINERS_MAX
from squall.sdk._facade import blocking
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text
from squall.sdk.types import FunctionAutoscalerSettings

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


class FunctionAutoscaler:
    """`Function.autoscaler`."""

    def __init__(self, owner: Scaled, name: str) -> None:
        self._owner = owner
        self._name = name

    @blocking
    async def settings(self) -> FunctionAutoscalerSettings:
        """What the autoscaler goes by now.

        Raises:
            NotFoundError: there is no such function, or its app was stopped.
        """
        client, function_id = await self._owner.scaled()
        return _shown(await client.request("AutoscalerGet", AutoscalerGet(function_id), AutoscalerSettings))

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
        client, function_id = await self._owner.scaled()
        asked = AutoscalerUpdate(
            function_id,
            min_containers=0 if min_containers is None else least,
            max_containers=most,
            is_unbounded=max_containers is None,
            buffer_containers=0 if buffer_containers is None else buffer,
            scaledown_window_s=None if isinstance(scaledown_window, _Keep) else float(scaledown_window),
        )
        return _shown(await client.request("AutoscalerUpdate", asked, AutoscalerSettings))

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
        return InvalidError(f"function {self._name}: autoscaler.update(): {message}")


def _shown(settings: AutoscalerSettings) -> FunctionAutoscalerSettings:
    return FunctionAutoscalerSettings(
        settings.min_containers,
        settings.max_containers,
        round(settings.scaledown_window_s),
        settings.buffer_containers,
    )
