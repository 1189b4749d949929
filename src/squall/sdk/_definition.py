"""What a function is made from here, or looked up by elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.protocol.records import record
from squall.sdk import _source

if TYPE_CHECKING:
    from squall.sdk._options import Options
    from squall.sdk._user_class import UserClass
    from squall.sdk.image import Image


@record
class Definition:
    """What a decorated function is made from; a handle by name or id has none."""

    raw_f: Callable[..., Any]
    source: _source.Source
    options: Options
    image: Image | None
    """None takes the app's, or the default."""
    include_source: bool | None
    user_class: UserClass | None = None
    """Of a class: `raw_f` as it was read."""


@record
class Handle:
    """What a function is looked up by that is not of this program: its name in an app, or its id."""

    function_id: str = ""
    app: str = ""
    name: str = ""
    is_class: bool = False
    """A class is meant, and not a function."""
    is_server: bool = False
    """And one that is a server."""
    environment: str = ""
    version: int = 0
    """Of the app, to be held to; 0 follows the current one."""
