"""Outputs on their way out: collected while inputs follow each other quickly, sent before anybody waits.

An output leaves at once when nothing else is waiting to run; otherwise after `LINGER_S`, by the runner between two
inputs or by the watcher while one runs.
"""

from __future__ import annotations

import json
import threading
import time

from squall.guest.link import Link
from squall.protocol.frames import INLINE_BYTES_MAX, Frame, encode_into

LINGER_S = 0.002
_PENDING_BYTES_MAX = 4 * INLINE_BYTES_MAX


class _Columns:
    """Outputs of one call."""

    __slots__ = ("attempts", "blobs", "indexes", "run_us", "sizes", "statuses", "values")

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.statuses: list[int] = []
        self.sizes: list[int] = []
        self.attempts: list[int] = []
        self.run_us: list[int] = []
        self.blobs: dict[str, str] = {}
        self.values: list[bytes] = []

    def header(self, call_id: str) -> bytes:
        """The header of an `Outputs` event with an `OutputBatch`, as text: encoding the record would cost more than a
        small input takes to run. Ids need no escaping, and Python prints a list of numbers as JSON does."""
        blobs = f',"blobs":{json.dumps(self.blobs)}' if self.blobs else ""
        return (
            f'{{"k":"ev","m":"Outputs","p":{{"call_id":"{call_id}","indexes":{self.indexes},"statuses":{self.statuses},'
            f'"sizes":{self.sizes},"attempts":{self.attempts},"run_us":{self.run_us}{blobs}}}}}'
        ).encode()


class Outbox:
    """Collects outputs and sends them in batches; what could not be sent is kept for the next connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._pending: dict[str, _Columns] = {}
        self._pending_bytes = 0
        self._oldest_at = 0.0
        self._unsent: list[bytes] = []

    def add(
        self, call_id: str, index: int, attempt: int, status: int, value: bytes, run_us: int, blob_sha256: str = ""
    ) -> None:
        """Take one output. A value in the blob store is named instead of sent."""
        with self._lock:
            columns = self._pending.get(call_id)
            if columns is None:
                if not self._pending:
                    self._oldest_at = time.monotonic()
                columns = self._pending[call_id] = _Columns()
            columns.indexes.append(index)
            columns.statuses.append(status)
            columns.attempts.append(attempt)
            columns.run_us.append(run_us)
            if blob_sha256:
                columns.sizes.append(-1)
                columns.blobs[str(index)] = blob_sha256
            else:
                columns.sizes.append(len(value))
                columns.values.append(value)
                self._pending_bytes += len(value)

    def is_due(self) -> bool:
        """Whether something has waited long enough, or is large."""
        return bool(self._pending) and (
            self._pending_bytes > _PENDING_BYTES_MAX or time.monotonic() - self._oldest_at >= LINGER_S
        )

    def flush(self) -> None:
        """Send all that waits."""
        with self._lock:
            if not self._pending and not self._unsent:
                return
            pending, self._pending, self._pending_bytes = self._pending, {}, 0
            chunks: list[bytes] = self._unsent
            self._unsent = []
            for call_id, columns in pending.items():
                encode_into(Frame(columns.header(call_id), b"".join(columns.values)), chunks)
            data = b"".join(chunks)
            # Under the lock: a batch that fails must be back in place before the next one is sent.
            if data and not self._link.send_bytes(data):
                self._unsent = [data]
