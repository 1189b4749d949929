"""Long lists, a page at a time: as much as a frame takes with room to spare, however many that are.

Who answers a list cuts it by `first_page` and says whether it was cut. Who asks goes on with the question that the
`following` of his own makes of the answer; it is None after the last page, and after one that brought nothing on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from squall.protocol import codec as wire
from squall.protocol.codec import Codec

R = TypeVar("R")

A = TypeVar("A", contravariant=True)

PAGE_BYTES_MAX = 2 * 2**20
"""Of one answer's records together, or one record that has more."""
PAGE_RECORDS_MAX = 1_000


class Question(Protocol[A]):
    """What is answered a page at a time."""

    def following(self, answer: A) -> Any:
        """The question for the next page; None after the last one."""


def pages(codec: Codec, records: Sequence[R]) -> Iterator[tuple[R, ...]]:
    """All of them in order; each page has one at least, and no more together than a page may have."""
    at = 0
    while at < len(records):
        page, _ = first_page(codec, (records[number] for number in range(at, len(records))))
        yield page
        at += len(page)


def first_page(
    codec: Codec, records: Iterable[R], *, records_max: int = PAGE_RECORDS_MAX
) -> tuple[tuple[R, ...], bool]:
    """Those on the first page, and whether there are others: one more than a page may have is all that is looked at."""
    page: list[R] = []
    page_bytes = 0
    for record in records:
        page_bytes += size_of(codec, record)
        if page and (page_bytes > PAGE_BYTES_MAX or len(page) >= records_max):
            return tuple(page), True
        page.append(record)
    return tuple(page), False


def size_of(codec: Codec, record: Any) -> int:
    """The bytes of a record in a frame, and a few more."""
    return len(codec.encode(wire.EVENT, 0, "", record))
