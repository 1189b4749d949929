"""Long answers, asked for a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from squall.protocol.pages import Question
    from squall.sdk._client import Client

R = TypeVar("R")


async def ask_pages(client: Client, method: str, question: Question[R], reply: type[R]) -> list[R]:
    """All pages, the first one first.

    Raises:
        Error: as `Client.request`.
    """
    pages: list[R] = []
    following: Question[R] | None = question
    while following is not None:
        pages.append(await client.request(method, following, reply))
        following = following.following(pages[-1])
    return pages
