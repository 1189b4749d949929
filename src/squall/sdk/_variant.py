"""A function with something of its own: parameters of an object, other options. Made on the server at its first use."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from squall.exception import NotFoundError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk.function import Function

BOUND_MAX = 1_000
"""Ids that are remembered, of all variants in this program."""
BOUND_S = 3600.0
"""For how long: the server forgets variants that it has not been asked for in days."""

_bound: OrderedDict[tuple[str, str, str], tuple[str, float]] = OrderedDict()
"""Base, parameters and options to the id, and since when it is known."""


class Variant:
    """What a function has of its own; without anything, it stands for the function it is of."""

    __slots__ = ("base", "options", "parameters")

    def __init__(self, base: Function[..., Any], parameters: str = "", options: FunctionOptions | None = None) -> None:
        self.base = base
        self.parameters = parameters
        self.options = options

    def with_options(self, options: FunctionOptions) -> Variant:
        """Another one, with these options as well; they go before those it has."""
        from squall.sdk._variant_options import merged  # cold start: only where options are given

        return Variant(self.base, self.parameters, merged(self.options, options))

    @property
    def is_plain(self) -> bool:
        """Whether it is no other than its base."""
        return not self.parameters and self.options is None

    def known_id(self) -> str | None:
        """Its id, as far as it can be told without asking."""
        base_id = self.base._known_id()
        if base_id is None or self.is_plain:
            return base_id
        found = _bound.get(self._key(base_id))
        return found[0] if found is not None and time.monotonic() - found[1] < BOUND_S else None

    async def resolve(self, client: Client) -> str:
        """Its id; the server makes it, if there is none yet.

        Raises:
            Error: its base cannot be found, or the server refuses it.
        """
        base_id = await self.base._resolve()
        if self.is_plain:
            return base_id
        key = self._key(base_id)
        found = _bound.get(key)
        if found is not None and time.monotonic() - found[1] < BOUND_S:
            return found[0]
        try:
            function_id = await self._bind(client, base_id)
        except NotFoundError:
            # The app it was found in was stopped, and nobody has called its base since.
            newer_id = await self.base.resolve_anew(instead_of=base_id)
            if newer_id == base_id:
                raise
            function_id = await self._bind(client, newer_id)
            key = self._key(newer_id)
        _bound[key] = function_id, time.monotonic()
        while len(_bound) > BOUND_MAX:
            _bound.popitem(last=False)
        return function_id

    async def _bind(self, client: Client, base_id: str) -> str:
        record = FunctionBind(base_id, self.parameters, self.options)
        return (await client.request("FunctionBind", record, FunctionBound)).function_id

    def _key(self, base_id: str) -> tuple[str, str, str]:
        return base_id, self.parameters, "" if self.options is None else repr(self.options)
