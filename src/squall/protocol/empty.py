"""A reply that says only: done."""

from __future__ import annotations

from squall.protocol.records import record


@record
class Empty:
    """Nothing to say."""
