"""Queues: items on the server, first in, first out, each in a partition of its queue. The server reads none of them.

What is put and taken has the id of its request. Asked again with the same, after a break or by way of another server,
nothing is put twice, and the same items are taken: they are remembered until the client says that it has the answer, or
for some minutes.
"""

from __future__ import annotations

from squall.protocol.records import record

ITEM_BYTES_MAX = 2**20
PARTITION_ITEMS_MAX = 5_000
PARTITION_BYTES_MAX = 64 * 2**20
PARTITIONS_MAX = 100_000
PARTITION_KEY_BYTES_MAX = 64
PARTITION_TTL_S_MAX = 24 * 3_600
PUT_ITEMS_MAX = 1_000
PUT_BYTES = 8 * 2**20
"""Of items in one request, unless one alone is larger: these are put all at once, or not at all."""
WAIT_MAX_S = 60.0
"""Of one request; who waits longer asks again."""
DONE_MAX = 1_000
"""Requests that are said to be answered by one other."""


def pack(values: list[bytes] | tuple[bytes, ...]) -> tuple[tuple[int, ...], bytes]:
    """Items for the wire: their sizes, and a body."""
    return tuple(map(len, values)), b"".join(values)


def unpack(sizes: tuple[int, ...], body: bytes) -> list[bytes]:
    """The items of a body.

    Raises:
        ValueError: the sizes are not its own.
    """
    if any(size < 0 for size in sizes) or sum(sizes) != len(body):
        raise ValueError(f"sizes of items do not add up to {len(body)} bytes")
    found: list[bytes] = []
    offset = 0
    for size in sizes:
        found.append(body[offset : offset + size])
        offset += size
    return found


@record
class QueuePut:
    """Append items, which are in the body: all of them or none.

    Errors: `not_found`, here and below where there is no such queue; `exhausted` when it has too many partitions.
    """

    queue_id: str
    request_id: str
    sizes: tuple[int, ...]
    partition: str = ""
    """Empty: the one that has no key."""
    timeout_s: float = 0.0
    """How long to wait for room."""
    partition_ttl_s: int = PARTITION_TTL_S_MAX
    """The partition is cleared so long after the last put."""
    done: tuple[str, ...] = ()
    """Requests of the same client to this queue whose answers have come: they will not be asked again."""


@record
class QueuePutDone:
    """The answer."""

    is_put: bool = True
    """False: the partition is full."""


@record
class QueueGet:
    """Take items out, at least one if there is one."""

    queue_id: str
    request_id: str
    partition: str = ""
    count: int = 1
    """So many at most."""
    timeout_s: float = 0.0
    """How long to wait for the first. Who came first gets it."""
    done: tuple[str, ...] = ()
    """As of `QueuePut`."""


@record
class QueueItems:
    """The answer: items are in the body."""

    sizes: tuple[int, ...] = ()


@record
class QueueGiveBack:
    """Nobody waits for the answer to a `QueueGet` any more: what it took is put back where it was."""

    queue_id: str
    request_id: str


@record
class QueueRead:
    """Items of a partition from its beginning, which stay where they are."""

    queue_id: str
    partition: str = ""
    after: int = -1
    """The number of the last item that was read."""
    limit: int = 100
    timeout_s: float = 0.0
    """How long to wait for one."""


@record
class QueuePage:
    """The answer: items are in the body."""

    sizes: tuple[int, ...] = ()
    after: int = -1
    """For the next question."""


@record
class QueueCountGet:
    """How much there is."""

    queue_id: str
    partition: str = ""
    is_total: bool = False
    """Of all partitions."""


@record
class QueueCount:
    """The answer."""

    item_count: int
    size_bytes: int = 0
    partition_count: int = 0


TOTALS_MAX = 1_000
"""Queues that are asked for at once."""


@record
class QueueTotalsGet:
    """How much there is in each of some queues, in all of its partitions."""

    queue_ids: tuple[str, ...]


@record
class QueueTotals:
    """The answer, in their order; of one that is not there (any more) there is nothing."""

    counts: tuple[QueueCount, ...]


@record
class QueueClear:
    """Remove the items of a partition, or of all."""

    queue_id: str
    request_id: str
    partition: str = ""
    is_all: bool = False
