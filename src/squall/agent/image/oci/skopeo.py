"""Runs skopeo with the settings this machine has for registries: mirrors, credentials, certificates, proxies.

TLS and certificates are checked unless the machine's registries.conf says otherwise for a registry; no option of ours
ever turns that off.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace

from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import PATH, WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci import refusal
from squall.agent.image.oci.credentials import Credentials, auth_file, place_of
from squall.agent.image.oci.refusal import RegistryFailure

_POLICIES = ("/etc/containers/policy.json", "{home}/.config/containers/policy.json")
_LOOK_TIMEOUT_S = 15.0
_TAGS_SHOWN = 10
_NO_REPOSITORY = re.compile(r"name unknown|\b404\b", re.IGNORECASE)


class Skopeo:
    """skopeo on this machine, for one image.

    Args:
        name: of the image, as errors have it; its registry is the one `credentials` are for.
        credentials: in place of those this machine has.
        keep_fds: inherited by each run, such as the lock of the directory it writes to.
        is_in_registry: a registry can be asked for more about the image. Of files it is none's business.
    """

    def __init__(
        self,
        name: str,
        settings: MachineSettings,
        output: Output,
        *,
        credentials: Credentials | None = None,
        keep_fds: Sequence[int] = (),
        is_in_registry: bool = True,
    ) -> None:
        self._name = name
        self._settings = settings
        # Also a password that no secret has, such as one that keys were exchanged for.
        hidden = output.hidden.and_of(credentials.hidden) if credentials is not None else output.hidden
        self._output = replace(output, hidden=hidden)
        self._credentials = credentials
        self._keep_fds = tuple(keep_fds)
        self._is_in_registry = is_in_registry

    def run(self, verb: str, *arguments: str, watch: Watch, environ: Mapping[str, str] | None = None) -> None:
        """Run it to its end and pass on what it prints, but for its last word, which is in the error. Blocks.

        Raises:
            RegistryFailure: it did not end well, or is not installed.
        """
        shown = replace(
            self._output, on_line=lambda line: None if refusal.is_last_word(line) else self._output.on_line(line)
        )
        try:
            self._run(verb, arguments, shown, watch, environ or {})
        except ToolFailed as failure:
            raise self._explained(refusal.refusal(self._name, failure, is_in_registry=self._is_in_registry)) from None

    def _run(
        self, verb: str, arguments: Sequence[str], output: Output, watch: Watch, environ: Mapping[str, str]
    ) -> None:
        if not shutil.which("skopeo", path=PATH):
            raise RegistryFailure("skopeo is not installed (apt-get install skopeo)")
        home = self._settings.registry_env.get("HOME", "/root")
        variables = {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": home,
            **({"SSL_CERT_FILE": self._settings.ca_bundle} if self._settings.ca_bundle else {}),
            **self._settings.proxies,
            **self._settings.registry_env,
            **environ,
        }
        # The policy says whose signatures are asked for. A machine without one, which is rare, asks for none.
        policy = () if any(os.path.exists(path.format(home=home)) for path in _POLICIES) else ("--insecure-policy",)
        with auth_file(self._name, self._credentials) as (options, descriptors):
            command = (*WITH_PARENT, "skopeo", *policy, verb, *options, *arguments)
            run_tool(command, variables, output, watch, (*self._keep_fds, *descriptors))

    def _explained(self, failure: RegistryFailure) -> RegistryFailure:
        """The same with what a second question tells of the cause."""
        more = ""
        if not self._is_in_registry:
            return failure
        if failure.kind == refusal.MISSING:
            more = self._what_is_there()
        elif failure.kind == refusal.UNAUTHORIZED:
            more = self._who_asked()
        elif failure.kind == refusal.NO_PLATFORM:
            more = self._platforms()
        return RegistryFailure(f"{failure}{more}", kind=failure.kind, is_silent=failure.is_silent)

    def _what_is_there(self) -> str:
        repository = repository_of(self._name)
        try:
            tags = json.loads(self._said("list-tags", f"docker://{repository}"))["Tags"] or ()
        except ToolFailed as failure:
            is_absent = _NO_REPOSITORY.search(refusal.words_of(failure))
            return f"; there is no repository {repository}" if is_absent else ""
        except (ValueError, KeyError, TypeError):
            return ""
        shown = ", ".join(str(tag) for tag in tags[:_TAGS_SHOWN])
        return f"; {repository} has {shown}{' and others' if len(tags) > _TAGS_SHOWN else ''}" if shown else ""

    def _who_asked(self) -> str:
        if self._credentials is not None:
            if self._credentials.known_as:
                return f"; check {self._credentials.known_as}, and what they may do"
            return f"; check the password of {self._credentials.username!r}, and what this user may do"
        try:
            username = self._said("login", "--get-login", place_of(self._name)).strip()
        except ToolFailed:
            username = ""
        if username:
            return f"; check the password that this machine has for {username!r}, and what this user may do"
        return "; no user and password were given, and this machine has none for it"

    def _platforms(self) -> str:
        try:
            listed = json.loads(self._said("inspect", "--raw", f"docker://{self._name}"))["manifests"]
            have = {f"{one['platform']['os']}/{one['platform']['architecture']}" for one in listed}
        except (ToolFailed, ValueError, KeyError, TypeError):
            return ""
        return f": {', '.join(sorted(have)[:_TAGS_SHOWN])}"

    def _said(self, verb: str, *arguments: str) -> str:
        lines: list[str] = []
        output = replace(self._output, on_line=lines.append)
        self._run(verb, arguments, output, Watch(_LOOK_TIMEOUT_S), {})
        return "\n".join(lines)


def repository_of(name: str) -> str:
    """An image's name without its tag and digest."""
    repository = name.partition("@")[0]
    head, colon, tag = repository.rpartition(":")
    return head if colon and "/" not in tag else repository


def reference_of(name: str) -> str:
    """An image's name as skopeo takes it: of a tag and a digest only the digest, which says more."""
    digest = name.partition("@")[2]
    return f"{repository_of(name)}@{digest}" if digest else name
