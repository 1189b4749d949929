"""Why an image could not be had or brought: what skopeo says, in words that name the cause and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from squall.agent.image.machine.tool import ToolFailed
from squall.agent.image.oci.credentials import place_of

UNAUTHORIZED = "unauthorized"
MISSING = "missing"
NO_PLATFORM = "no_platform"
NO_TLS = "no_tls"
UNKNOWN_CERTIFICATE = "unknown_certificate"
UNREACHABLE = "unreachable"
DAMAGED = "damaged"
TORN = "torn"
DISK_FULL = "disk_full"
BUSY = "busy"
UNKNOWN = ""

_NO_NETWORK = "no network: {place} cannot be reached"
_CHECK = "check its name, DNS, firewall and HTTPS_PROXY"
_FATAL = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*")')


class RegistryFailure(Exception):
    """A registry cannot serve or take an image; the message says why, in the words of skopeo where it has any.

    Attributes:
        kind: one of the kinds above; `UNKNOWN` when the words say nothing we know.
        is_silent: nobody answered in time; asking again soon is a waste of that time.
    """

    def __init__(self, message: str, *, kind: str = UNKNOWN, is_silent: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.is_silent = is_silent

    @property
    def is_missing(self) -> bool:
        """Somebody answered that there is no such image."""
        return self.kind == MISSING


@dataclass(frozen=True, slots=True)
class _Kind:
    kind: str
    words: re.Pattern[str]
    explanation: Callable[[str], str]
    """Of the registry, by its name."""


def _kind(kind: str, words: str, explanation: str) -> _Kind:
    return _Kind(kind, re.compile(words, re.IGNORECASE), lambda place: explanation.format(place=place))


# In this order: what is full or torn is often told in the words of a digest that is wrong.
_KINDS = (
    _kind(
        DISK_FULL,
        r"no space left on device|disk quota exceeded",
        "the disk is full: make room, or put the data directory on a larger one",
    ),
    _kind(
        NO_TLS,
        r"server gave HTTP response to HTTPS client",
        "{place} speaks no TLS, so anybody on the way could change what it serves; give it a certificate, or let this "
        'machine use it all the same by the lines [[registry]], location = "{place}", insecure = true in '
        "/etc/containers/registries.conf",
    ),
    _kind(
        UNKNOWN_CERTIFICATE,
        r"x509:|certificate signed by unknown authority|tls: failed to verify|certificate (is|has|relies)",
        "this machine does not know the certificate of {place}; put the one of its authority into "
        "/etc/containers/certs.d/{place}/ca.crt, or add it to those the machine trusts",
    ),
    _kind(
        UNAUTHORIZED,
        r"unauthorized|authentication required|access .{0,40}denied|invalid username/password|\b40[13]\b",
        "{place} lets nobody do this who is not known to it, or not this user",
    ),
    _kind(
        NO_PLATFORM,
        r"no image found in manifest list|no image found in image index",
        "it is made for other machines only",
    ),
    _kind(MISSING, r"manifest unknown|name unknown|not found|repository .{0,20}not known", "there is no such image"),
    _kind(BUSY, r"toomanyrequests|too many requests|\b429\b", "{place} lets nobody ask this often; try again later"),
    _kind(
        UNREACHABLE,
        r"no such host|connection refused|network is unreachable|no route to host|server misbehaving|i/o timeout"
        r"|temporary failure in name resolution|TLS handshake timeout|proxyconnect",
        f"{_NO_NETWORK}; {_CHECK}",
    ),
    _kind(
        TORN,
        r"unexpected EOF|connection reset|broken pipe|: EOF\b|http2: |use of closed network connection",
        "{place} broke off half-way; nothing of it was kept, try again",
    ),
    _kind(
        DAMAGED,
        r"digest (did not match|mismatch|verification)|does not match|did not match|manifest blob unknown|blob unknown"
        r"|invalid checksum|gzip: |zstd: |invalid header",
        "what {place} serves is damaged: it is not what its name or its digest says; push it again",
    ),
)


# Of a file no registry is to be blamed. A kind that is not here explains nothing: the words have to do.
_OF_FILES = {
    DISK_FULL: "the disk is full: make room, or put the data directory on a larger one",
    NO_PLATFORM: "it is made for other machines only",
    **dict.fromkeys((MISSING, TORN, DAMAGED), "the file is damaged, or is not all of it"),
}


def refusal(name: str, failure: ToolFailed, *, is_in_registry: bool = True) -> RegistryFailure:
    """The error for an image after skopeo failed; `name` is a file's where the image is in no registry."""
    words = words_of(failure)
    if failure.is_silent:
        message = f"{name}: {words}; {_NO_NETWORK.format(place=place_of(name))}; {_CHECK}"
        return RegistryFailure(message, kind=UNREACHABLE, is_silent=True)
    if failure.reason:
        return RegistryFailure(f"{name}: {words}")
    for known in _KINDS:
        if known.words.search(words) and not is_in_registry:
            explanation = _OF_FILES.get(known.kind)
            return RegistryFailure(f"{name}: {explanation} ({words})" if explanation else f"{name}: {words}")
        if known.words.search(words):
            return RegistryFailure(f"{name}: {known.explanation(place_of(name))} ({words})", kind=known.kind)
    return RegistryFailure(f"{name}: {words}")


def is_last_word(line: str) -> bool:
    """Whether a line of skopeo is the one that is in the error."""
    return bool(_FATAL.search(line))


def words_of(failure: ToolFailed) -> str:
    """What skopeo said last, without its frame."""
    if failure.reason:
        return failure.reason
    found = _FATAL.findall(failure.tail)
    try:
        return str(json.loads(found[-1])) if found else failure.tail or "skopeo failed without a word"
    except ValueError:
        return str(found[-1])
