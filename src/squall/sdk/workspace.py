"""The workspace: what is of a server as a whole, and of none of its environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.exception import InvalidError
from squall.sdk._asset import client_of, time_of
from squall.sdk._environment import check_environment
from squall.sdk._facade import blocking
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    import builtins

    from squall.protocol.proxy_token import ProxyTokenInfo
    from squall.sdk import types
    from squall.sdk._client import Client

_NAME = "main"


class Workspace:
    """A handle to the workspace. Nothing is asked before its first use."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise InvalidError("Workspace() cannot be made directly; use Workspace.from_context()")

    _client: Client | None

    @staticmethod
    def from_context(*, client: Client | None = None) -> Workspace:
        """The one of the server that is asked: each has one."""
        workspace = object.__new__(Workspace)
        workspace._client = client
        return workspace

    @property
    def name(self) -> str:
        """The same of every server."""
        return _NAME

    @property
    def proxy_tokens(self) -> WorkspaceProxyTokens:
        """What opens web functions that ask for a token."""
        return WorkspaceProxyTokens(self)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            from squall.sdk import _later  # cold start: only where there is no such name

            return _later.absent(self, _later.OF_WORKSPACE, name)

    def __repr__(self) -> str:
        return "<Workspace>"


class WorkspaceProxyTokens:
    """Proxy tokens: a request to a web function that asks for one carries its id and its secret, as the headers
    `Modal-Key` and `Modal-Secret`, or `Squall-Key` and `Squall-Secret`."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @property
    def _client(self) -> Client:
        return client_of(self._workspace._client)

    @blocking
    async def create(self, name: str = "") -> types.TokenData:
        """Make one. It opens the web functions of every environment, until it is allowed one (`allow`). Only what is
        returned has the secret: the server keeps its hash.

        Raises:
            InvalidError: none can be called that.
        """
        import secrets  # cold start: only where one is made

        from squall.protocol import proxy_token  # cold start: as above
        from squall.protocol.hashing import sha256_hex  # cold start: as above
        from squall.protocol.ids import new_id  # cold start: as above
        from squall.sdk._user import user_name  # cold start: as above
        from squall.sdk.types import TokenData  # cold start: as above

        made = TokenData(new_id("wk"), f"ws-{secrets.token_urlsafe(32)}")
        record = proxy_token.ProxyTokenCreate(
            made.token_id, sha256_hex(made.token_secret.encode()), _checked_name(name, "create"), user_name()
        )
        await self._client.request("ProxyTokenCreate", record, proxy_token.ProxyTokenInfo)
        return made

    @blocking
    async def list(self, environment_name: str | None = None) -> builtins.list[types.ProxyTokenInfo]:
        """All, the newest first; or those that open the web functions of an environment."""
        from squall.protocol.proxy_token import ProxyTokenList, ProxyTokenListing  # cold start: as above

        name = "" if environment_name is None else _environment(environment_name, "list")
        listing = await self._client.request("ProxyTokenList", ProxyTokenList(name), ProxyTokenListing)
        return [_info(token) for token in listing.tokens]

    @blocking
    async def update(self, proxy_token_id: str, *, name: str) -> None:
        """Give one another name.

        Raises:
            NotFoundError: there is no such token.
            InvalidError: none can be called that.
        """
        from squall.protocol.proxy_token import ProxyTokenInfo, ProxyTokenUpdate  # cold start: as above

        record = ProxyTokenUpdate(_id(proxy_token_id, "update"), _checked_name(name, "update"))
        await self._client.request("ProxyTokenUpdate", record, ProxyTokenInfo)

    @blocking
    async def allow(self, proxy_token_id: str, environment_name: str) -> None:
        """Let one open the web functions of an environment. With the first it is allowed it opens no others any more.

        Raises:
            NotFoundError: there is no such token, or no such environment.
        """
        from squall.protocol.proxy_token import ProxyTokenAllow, ProxyTokenInfo  # cold start: as above

        record = ProxyTokenAllow(_id(proxy_token_id, "allow"), _environment(environment_name, "allow"))
        await self._client.request("ProxyTokenAllow", record, ProxyTokenInfo)

    @blocking
    async def revoke(self, proxy_token_id: str, environment_name: str) -> None:
        """Take an environment from one. When this returns, no request to its web functions passes with it any more.

        Raises:
            NotFoundError: there is no such token, or no such environment.
            InvalidError: it opens every environment.
        """
        from squall.protocol.proxy_token import ProxyTokenInfo, ProxyTokenRevoke  # cold start: as above

        record = ProxyTokenRevoke(_id(proxy_token_id, "revoke"), _environment(environment_name, "revoke"))
        await self._client.request("ProxyTokenRevoke", record, ProxyTokenInfo)

    @blocking
    async def delete(self, proxy_token_id: str) -> None:
        """Delete one, for good. When this returns, no request passes with it any more.

        Raises:
            NotFoundError: there is no such token.
        """
        from squall.protocol.empty import Empty  # cold start: as above
        from squall.protocol.proxy_token import ProxyTokenDelete  # cold start: as above

        await self._client.request("ProxyTokenDelete", ProxyTokenDelete(_id(proxy_token_id, "delete")), Empty)


def _info(token: ProxyTokenInfo) -> types.ProxyTokenInfo:
    from squall.sdk.types import ProxyTokenInfo as Info  # cold start: only where somebody wants to know

    return Info(
        token.token_id,
        time_of(token.created_at),
        token.is_scoped,
        token.name,
        token.created_by,
        list(token.environments),
        None if token.last_used_at is None else time_of(token.last_used_at),
    )


def _id(given: object, method: str) -> str:
    from squall.protocol.ids import is_id  # cold start: as above

    if isinstance(given, str) and is_id(given, "wk"):
        return given
    # What is given in its place may be the secret.
    raise InvalidError(f"Workspace.proxy_tokens.{method}: a token is named by its id, which begins with wk-")


def _checked_name(given: object, method: str) -> str:
    from squall.protocol.proxy_token import NAME_RULE, is_token_name  # cold start: as above

    if isinstance(given, str) and is_token_name(given):
        return given
    raise InvalidError(
        f"Workspace.proxy_tokens.{method}: name={value_text(given)} is no name of a token: it has {NAME_RULE}"
    )


def _environment(given: object, method: str) -> str:
    return check_environment(given, f"Workspace.proxy_tokens.{method}")
