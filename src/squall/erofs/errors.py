"""What can go wrong with an image file."""

from __future__ import annotations


class PackError(Exception):
    """A tree cannot become an image; the message names the path and says what to do."""


class BadImage(Exception):
    """A file is no EROFS image, is damaged, or uses what we do not read; the message says which."""
