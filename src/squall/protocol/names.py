"""What things may be called. The library says so before a server is asked, and the server to everybody."""

from __future__ import annotations

NAME = r"[A-Za-z0-9._-]{1,64}\Z"
"""Of an app, a function, an image; as a pattern for `re.match`, like those below."""
NAME_RULE = "1 to 64 letters, digits, dots, dashes and underscores"
APP_TAG = r"[A-Za-z0-9._-]{1,63}\Z"
"""A key or value of an app's tags."""
APP_TAG_RULE = "1 to 63 letters, digits, dots, dashes and underscores"
VERSION_TAG = r"[A-Za-z0-9._-]{0,50}\Z"
VERSION_TAG_RULE = "at most 50 letters, digits, dots, dashes and underscores"
