"""A function with something of its own: parameters of an object, other options. Made on the server at its first use."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from squall.exception import NotFoundError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionOptions
from squall.protocol.records import replace

if TYPE_CHECKING:
    from squall.sdk._client import Client
    from squall.sdk._given import Found, Given
    from squall.sdk.function import Function

BOUND_MAX = 1_000
"""Ids that are remembered, of all variants in this program."""
BOUND_S = 3600.0
"""For how long: the server forgets variants that it has not been asked for in days."""

Key = tuple[str, str, str, "Found | None"]
"""Base, parameters, options, and what the server has of these."""

_bound: OrderedDict[Key, tuple[str, float]] = OrderedDict()
"""The id, and since when it is known."""


class Variant:
    """What a function has of its own; without anything, it stands for the function it is of."""

    __slots__ = ("base", "given", "options", "parameters")

    def __init__(
        self,
        base: Function[..., Any],
        parameters: str = "",
        options: FunctionOptions | None = None,
        given: Given | None = None,
    ) -> None:
        self.base = base
        self.parameters = parameters
        self.options = options
        self.given = given

    def with_options(self, options: FunctionOptions, given: Given | None = None) -> Variant:
        """Another one, with these options as well; they go before those it has."""
        from squall.sdk._variant_options import merged  # cold start: only where options are given

        given = self.given if given is None else given.over(self.given)
        return Variant(self.base, self.parameters, merged(self.options, options), given)

    def with_parameters(self, parameters: str) -> Variant:
        """Another one, with these."""
        return Variant(self.base, parameters, self.options, self.given)

    @property
    def is_plain(self) -> bool:
        """Whether it is no other than its base."""
        return not self.parameters and self.options is None and self.given is None

    def known_id(self) -> str | None:
        """Its id, as far as it can be told without asking."""
        base_id = self.base._known_id()
        if base_id is None or self.is_plain:
            return base_id
        assets = None if self.given is None else self.given.known(base_id)
        if self.given is not None and assets is None:
            return None
        found = _bound.get(self._key(base_id, assets))
        return found[0] if found is not None and time.monotonic() - found[1] < BOUND_S else None

    async def resolve(self, client: Client) -> str:
        """Its id; the server makes it, if there is none yet.

        Raises:
            Error: its base cannot be found, or the server refuses it.
        """
        base_id = await self.base._resolve()
        if self.is_plain:
            return base_id
        assets = await self._assets(base_id, client)
        key = self._key(base_id, assets)
        found = _bound.get(key)
        if found is not None and time.monotonic() - found[1] < BOUND_S:
            return found[0]
        try:
            function_id = await self._bind(client, base_id, assets)
        except NotFoundError:
            # The app it was found in was stopped, and nobody has called its base since.
            newer_id = await self.base.resolve_anew(instead_of=base_id)
            if newer_id == base_id:
                raise
            assets = await self._assets(newer_id, client)
            function_id = await self._bind(client, newer_id, assets)
            key = self._key(newer_id, assets)
        _bound[key] = function_id, time.monotonic()
        while len(_bound) > BOUND_MAX:
            _bound.popitem(last=False)
        return function_id

    async def _assets(self, base_id: str, client: Client) -> Found | None:
        return None if self.given is None else await self.given.resolve(base_id, client)

    async def _bind(self, client: Client, base_id: str, assets: Found | None) -> str:
        options = self.options
        if assets is not None:
            options = replace(options or FunctionOptions(), **assets._asdict())
        record = FunctionBind(base_id, self.parameters, options)
        return (await client.request("FunctionBind", record, FunctionBound)).function_id

    def _key(self, base_id: str, assets: Found | None) -> Key:
        return base_id, self.parameters, "" if self.options is None else repr(self.options), assets
