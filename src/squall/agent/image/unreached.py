"""What programs of build steps print when there is no network, and the host they could not reach.

Their own last lines often name what is missing only because of that: a package, a version.
"""

from __future__ import annotations

import re

_HOST = r"(?P<host>[\w.:-]*[\w-])"
_NO_CONNECTION = "|".join(
    (
        "dns error",
        "tcp connect error",
        r"client error \(Connect\)",
        "operation timed out",
        "Network is unreachable",
        "Connection refused",
    )
)
_FETCHED = r"(?:Failed to fetch: `?|for url \()https?://(?:[^@/\s]*@)?(?P<host>[\w.-]+)"
_WORDS = tuple(
    re.compile(words, re.DOTALL)
    for words in (
        # apt
        rf"(?:Temporary failure|Something wicked happened) resolving '{_HOST}'",
        rf"Could not resolve '{_HOST}'",
        r"(?:Could not connect|Unable to connect|Cannot initiate the connection) to (?P<host>[\w.-]+):",
        # uv
        rf"{_FETCHED}[^\n]*\n.{{0,600}}?(?:{_NO_CONNECTION})",
        # pip, and what else is of Python
        rf"host='{_HOST}'.{{0,400}}?(?:Failed to establish a new connection|timed out|Failed to resolve)",
        rf"Failed to resolve '{_HOST}'",
        r"Failed to establish a new connection: \[Errno (?:-\d+|101|110|111|113)\](?P<host>)",
        # curl, git, wget, npm
        rf"Could not resolve (?:host|proxy): {_HOST}",
        rf"Failed to connect to {_HOST} port",
        rf"unable to resolve host address .{_HOST}",
        rf"getaddrinfo (?:EAI_AGAIN|ENOTFOUND) {_HOST}",
    )
)
_OWN_HOST = re.compile(r"localhost|127\.|::1|0\.0\.0\.0")
REMEDY = "check DNS, firewall and proxy of this machine, and which mirrors and indexes it names; then build again"


def unreached(text: str) -> str:
    """That there was no network, and which host could not be reached; empty where these lines say nothing of it."""
    for words in _WORDS:
        for match in words.finditer(text):
            # What a step looks for on its own loopback is no matter of the network.
            if not _OWN_HOST.match(match["host"]):
                return f"no network: {match['host'] or 'a host'} could not be reached"
    return ""
