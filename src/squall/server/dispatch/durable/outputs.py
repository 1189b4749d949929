"""Outputs of durable calls as they are answered."""

from __future__ import annotations

from collections.abc import Iterable

from squall.protocol.call import IN_BLOB, OutputBatch
from squall.server.model.store import StoredOutput

WAIT_MAX_S = 60.0
"""Of one question for outputs; the client asks again."""


def batch_of(call_id: str, numbered: Iterable[tuple[int, StoredOutput]]) -> tuple[OutputBatch, bytes]:
    """Outputs under the numbers that they are to have."""
    pairs = list(numbered)
    outputs = [one for _, one in pairs]
    record = OutputBatch(
        call_id,
        tuple([number for number, _ in pairs]),
        tuple([one.status for one in outputs]),
        tuple([IN_BLOB if one.blob_sha256 else len(one.value) for one in outputs]),
        tuple([one.attempt for one in outputs]),
        tuple([one.run_us for one in outputs]),
        {str(number): one.blob_sha256 for number, one in pairs if one.blob_sha256},
    )
    return record, b"".join([one.value for one in outputs])
