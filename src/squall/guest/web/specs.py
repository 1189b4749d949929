"""What of a container answers requests, by what it was told."""

from __future__ import annotations

from collections.abc import Iterator

from squall.protocol.guest import Boot
from squall.protocol.web import WebSpec


def webs_of(boot: Boot) -> Iterator[tuple[str, WebSpec]]:
    """What answers requests, with the methods that they are for; of a function with none."""
    if boot.web is not None:
        yield "", boot.web
    for method in boot.definition.methods:
        if method.web is not None:
            yield method.name, method.web


def is_web(boot: Boot) -> bool:
    """Whether anything does."""
    return next(webs_of(boot), None) is not None
