"""Assets: what users keep on the server, each under a name in an environment, or for as long as its owner lives."""

from __future__ import annotations

from squall.protocol.records import record, replace

VOLUME, DICT, QUEUE, SECRET = "volume", "dict", "queue", "secret"
ASSET_KINDS = {VOLUME: "vo", DICT: "di", QUEUE: "qu", SECRET: "st"}
"""Each with the kind of its ids."""


@record
class AssetCreate:
    """Make an asset. The caller makes the id, so repeating is harmless.

    Without a name it is ephemeral: it goes when the client that made it has gone, and has not come back within the
    grace time.

    Error: `exists` when there is one of that name and kind, unless that is fine: then the answer is that one.
    """

    asset_id: str
    kind: str
    """One of `ASSET_KINDS`, but no secret: these are made with what is in them."""
    name: str = ""
    environment: str = ""
    created_by: str = ""
    """The user of the program that makes it, as it is shown."""
    may_exist: bool = False


@record
class AssetInfo:
    """One asset as listed."""

    asset_id: str
    kind: str
    name: str = ""
    """Empty when it is ephemeral."""
    environment: str = ""
    created_at: float = 0.0
    """Seconds since 1970."""
    created_by: str = ""


@record
class AssetGet:
    """Ask for one. Error: `not_found`, with names that are like it."""

    kind: str
    asset: str
    """Its id, or its name."""
    environment: str = ""
    """That the name is of."""


@record
class AssetList:
    """Ask for those that have a name, newest first."""

    kind: str
    environment: str = ""
    limit: int = 100
    before_at: float | None = None
    """Those that were made before that time, or at that time with a smaller id."""
    before_id: str = ""

    def following(self, listing: AssetListing) -> AssetList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.assets:
            return None
        last = listing.assets[-1]
        if (last.created_at, last.asset_id) == (self.before_at, self.before_id):
            return None
        limit = max(0, self.limit - len(listing.assets))
        return replace(self, limit=limit, before_at=last.created_at, before_id=last.asset_id)


@record
class AssetListing:
    """The answer: a page of it."""

    assets: tuple[AssetInfo, ...]
    is_cut: bool = False
    """There are more."""


@record
class AssetRename:
    """Give an asset another name. Errors: `not_found`; `exists` when another one has it."""

    kind: str
    name: str
    new_name: str
    environment: str = ""


@record
class AssetDelete:
    """Delete an asset and everything in it, for good. Error: `not_found`."""

    kind: str
    asset: str
    """Its id, or its name."""
    environment: str = ""
