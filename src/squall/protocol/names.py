"""What things may be called. The library says so before a server is asked, and the server to everybody."""

from __future__ import annotations

NAME = r"[A-Za-z0-9._-]{1,64}\Z"
"""Of an app, a function, an image and its tag; as a pattern for `re.match`, like those below."""
NAME_RULE = "1 to 64 ASCII letters, digits, dots, dashes and underscores"
ENVIRONMENT = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z"
ENVIRONMENT_RULE = "1 to 64 ASCII letters, digits, dashes and underscores, the first a letter or digit"
WEB_SUFFIX = r"[a-z0-9]{1,16}\Z"
"""Behind the labels of web functions of apps that do not stay."""
WEB_SUFFIX_RULE = "1 to 16 lower-case ASCII letters and digits"
APP_TAG = r"[A-Za-z0-9._-]{1,63}\Z"
"""A key or value of an app's tags."""
APP_TAG_RULE = "1 to 63 ASCII letters, digits, dots, dashes and underscores"
VERSION_TAG = r"[A-Za-z0-9._-]{0,50}\Z"
VERSION_TAG_RULE = "at most 50 ASCII letters, digits, dots, dashes and underscores"
