"""A reply that says only: done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Empty:
    """Nothing to say."""
