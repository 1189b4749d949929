"""Where web functions are found: a label follows from what it is of, and so is kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

from squall.protocol.function import FunctionSpec
from squall.protocol.hashing import sha256_hex
from squall.protocol.web import APPLICATIONS, PROXIES, SERVER, WebSpec

LABEL_CHARS_MAX = 63
"""Of one part of a host's name."""
LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
DOMAIN = r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
DOMAINS_MAX = 20
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_HASH_CHARS = 6


def webs_of(spec: FunctionSpec) -> Iterator[tuple[str, WebSpec]]:
    """What of a function answers requests: itself, or methods of it by name."""
    if spec.web is not None:
        yield "", spec.web
    for method in spec.definition.methods:
        if method.web is not None:
            yield method.name, method.web


def is_server(spec: FunctionSpec) -> bool:
    """Whether it is an app's server, and no function that is called."""
    return spec.web is not None and spec.web.kind == SERVER


def web_of(spec: FunctionSpec, method: str) -> WebSpec | None:
    """The same of one of them."""
    return next((web for name, web in webs_of(spec) if name == method), None)


def label_of(
    web: WebSpec, app_name: str, function_name: str, method: str = "", *, environment: str = "", suffix: str = ""
) -> str:
    """The label: what was asked for, or made of names; with the environment in front, where it is not the default one,
    and the suffix of apps that do not stay behind."""
    label = web.label or _dashed("-".join(part for part in (app_name, function_name, method) if part))
    if suffix:
        label = f"{label}-{_dashed(suffix)}"
    if environment:
        label = f"{_dashed(environment)}--{label}"
    if len(label) <= LABEL_CHARS_MAX:
        return label
    mark = sha256_hex(label.encode())[:_HASH_CHARS]
    return f"{label[: LABEL_CHARS_MAX - _HASH_CHARS - 1].rstrip('-')}-{mark}"


def _dashed(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def web_problem(spec: FunctionSpec) -> str:
    """What is wrong with what a function says of the requests it answers; empty when nothing is."""
    for method, web in webs_of(spec):
        problem = _problem(web)
        if problem:
            return f"{method}: {problem}" if method else problem
        if web.kind == SERVER and method:
            return f"{method}: a method cannot be an app's server, only the class can"
    if spec.web is not None and (
        spec.definition.is_generator or spec.batching is not None or spec.schedule is not None
    ):
        return "what answers requests cannot be a generator, run in batches, or have a schedule"
    if spec.retries.max_retries and any(True for _ in webs_of(spec)):
        return "what answers requests cannot have retries"
    return ""


def _problem(web: WebSpec) -> str:
    if web.kind not in APPLICATIONS | PROXIES:
        return f"web interface {web.kind[:80]!r} must be one of {', '.join(sorted(APPLICATIONS | PROXIES))}"
    if web.label and not re.match(LABEL, web.label):
        return f"label {web.label[:80]!r} must be 1 to 63 of a-z, 0-9 and dashes, no dash first or last"
    if len(web.custom_domains) > DOMAINS_MAX:
        return f"at most {DOMAINS_MAX} custom domains"
    for domain in web.custom_domains:
        if not re.match(DOMAIN, domain):
            return f"custom domain {domain[:80]!r} must be the name of a host, in lower case"
    if web.kind in PROXIES and not 1 <= web.port <= 65_535:
        return f"port {web.port} must be from 1 to 65535"
    if web.kind in PROXIES and not 0 < web.port_timeout_s <= 24 * 3600:
        return "the time to listen must be above zero, and a day at most"
    if web.method not in METHODS:
        return f"method {web.method[:80]!r} must be one of {', '.join(sorted(METHODS))}"
    return ""
