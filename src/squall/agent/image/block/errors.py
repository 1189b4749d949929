"""What can go wrong with layers in a store."""

from __future__ import annotations


class BlockError(Exception):
    """Something of a layer or image cannot be put, fetched or used; the message names it, its store, and the cause."""


class NotInStore(BlockError):
    """The store answers, and does not have it."""
