"""Checks of what is fetched from elsewhere: Debian mirror and Python index as configured here, and the clock.

No address is built in: what the machine uses is what containers will use. The clock is compared with the mirrors' own,
since they are asked anyway.
"""

from __future__ import annotations

import configparser
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from squall.runtime.checks.check import Check

TIMEOUT_S = 5.0
SKEW_MAX_S = 60.0
ASKED_MAX = 8
APT_FILES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")
PIP_FILES = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
INDEX_VARIABLES = ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")
INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links")


@dataclass(frozen=True, slots=True)
class Answer:
    """What asking one address gave."""

    url: str
    error: str
    """Empty when somebody answered, whatever the answer."""
    clock_s: float | None
    """The other side's clock, seconds since 1970."""


def parse_apt_sources(text: str) -> list[str]:
    """Release files of the repositories named in one-line or deb822 sources; disabled ones are left out."""
    found = []
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", "", line).split()
        if len(words) > 2 and words[0] == "deb":
            found.append(release_url(words[1], words[2]))
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        uris, suites = fields.get("URIs", "").split(), fields.get("Suites", "").split()
        if uris and suites and fields.get("Enabled", "yes").strip().lower() not in ("no", "false", "0"):
            found += [release_url(uri, suites[0]) for uri in uris]
    return list(dict.fromkeys(found))


def release_url(uri: str, suite: str) -> str:
    """Where a repository's signed list of contents is. A suite that ends in a slash is a plain directory."""
    directory = suite if suite.endswith("/") else f"dists/{suite}/"
    return f"{uri.rstrip('/')}/{directory.lstrip('/')}InRelease"


def parse_pip_config(text: str) -> list[str]:
    """Indexes and link directories named in a pip.conf."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return []
    sections = [section for section in ("global", "install") if parser.has_section(section)]
    values = [parser.get(section, option, fallback="") for section in sections for option in INDEX_OPTIONS]
    return list(dict.fromkeys(word for value in values for word in value.split()))


def _read(path: str) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def find_debian_mirrors() -> list[str]:
    """Release files of this machine's repositories."""
    single, folder = APT_FILES
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [single, *(f"{folder}/{name}" for name in names if name.endswith((".list", ".sources")))]
    return list(dict.fromkeys(url for path in paths for url in parse_apt_sources(_read(path))))


def find_python_indexes(env: Mapping[str, str]) -> list[str]:
    """Indexes this machine's installers use, by environment and configuration; empty means their built-in default."""
    named = [word for variable in INDEX_VARIABLES for word in env.get(variable, "").split()]
    files = [PIP_FILES[0], *PIP_FILES[1:], env.get("PIP_CONFIG_FILE", "")]
    return list(dict.fromkeys([*named, *(url for path in files if path for url in parse_pip_config(_read(path)))]))


def ask(url: str, proxies: Mapping[str, str]) -> Answer:
    """Ask one address; a directory is looked at."""
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return Answer(url, "" if os.path.exists(parts.path) else "no such directory", None)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(dict(proxies)))
    try:
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S) as response:
            return Answer(url, "", _clock_of(response.headers.get("Date")))
    except urllib.error.HTTPError as error:
        with error:
            text = f"answers {error.code} {error.reason}" if error.code >= 500 or error.code == 407 else ""
            return Answer(url, text, _clock_of(error.headers.get("Date")))
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Answer(url, str(reason), None)


def _clock_of(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def check_answers(name: str, answers: Iterable[Answer], fix: str) -> list[Check]:
    """One check per address."""
    return [
        Check(name, "warn", f"{without_password(answer.url)}: {answer.error}", fix)
        if answer.error
        else Check(name, "ok", f"{without_password(answer.url)} is reachable")
        for answer in answers
    ]


def check_clock(answers: Iterable[Answer], now_s: float) -> Check:
    """A wrong clock breaks certificates, tokens and schedules."""
    skews = sorted(answer.clock_s - now_s for answer in answers if answer.clock_s is not None)
    if not skews:
        return Check("clock", "ok", "not compared: no mirror told the time")
    # The middle one: a cache on the way may give an old date.
    skew_s = skews[len(skews) // 2]
    if abs(skew_s) <= SKEW_MAX_S:
        return Check("clock", "ok", f"within {SKEW_MAX_S:g} s of the package mirrors")
    side = "behind" if skew_s > 0 else "ahead of"
    return Check("clock", "warn", f"{abs(skew_s):.0f} s {side} the package mirrors", "timedatectl set-ntp true")


def proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """Proxies by scheme, as the environment names them."""
    return {
        name.lower().removesuffix("_proxy"): value
        for name, value in env.items()
        if name.lower() in ("http_proxy", "https_proxy") and value
    }


def check_mirrors(env: Mapping[str, str], now_s: float) -> list[Check]:
    """All checks of what is fetched from elsewhere; takes a few seconds at most."""
    mirrors, indexes = find_debian_mirrors()[:ASKED_MAX], find_python_indexes(env)[:ASKED_MAX]
    proxies = proxies_of(env)
    with ThreadPoolExecutor(max_workers=2 * ASKED_MAX, thread_name_prefix="squall-checks") as threads:
        answers = list(threads.map(lambda url: ask(url, proxies), [*mirrors, *indexes]))
    debian, python = answers[: len(mirrors)], answers[len(mirrors) :]
    found = check_answers("Debian mirror", debian, "check DNS, firewall and HTTP_PROXY; apt-get update tells more")
    found += check_answers("Python index", python, "check DNS, firewall and HTTPS_PROXY; pip config list tells more")
    if not mirrors:
        fix = "name one in /etc/apt/sources.list, or use images from a registry"
        found.append(Check("Debian mirror", "warn", "none is configured: Debian images cannot be made", fix))
    if not indexes:
        found.append(Check("Python index", "ok", "none is configured; installers use their default (not tried)"))
    return [*found, check_clock(answers, now_s)]
