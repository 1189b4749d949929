"""Which starts can begin as copies of the same template: those with the same key.

A template of an image has nothing of a function but the variables that its interpreter began with: it is one for all
functions of an app that have the same ones. Of their files it has only those that an interpreter may load by itself
(`early_files.py`). A template of a function has all.

A key is a hash of all that can be seen in the process of a template: code, image, files, environment with secrets,
resources. It is made with a secret of the node: who reads a key cannot try out which secrets it was made of.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

from squall.agent.image.progress import BuiltImage
from squall.protocol.function import Resources
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace, to_wire
from squall.protocol.template import FUNCTION

_SECRET_BYTES = 32
_NAME = "template-key"

_log = logging.getLogger("squall.agent.template")


def of_image(request: ContainerStart, *, has_files: bool) -> ContainerStart:
    """What a template of the image is made by, for this start and others of its app.

    Args:
        has_files: it is to have this function's.
    """
    mounts = request.mounts if has_files else ()
    nobodys = replace(request, container_id="", function_id="", follows_id="", version=0)
    # The guest alone has use for neither; its forks have them.
    return replace(nobodys, mounts=mounts, resources=Resources(), volumes=())


class TemplateKeys:
    """Makes keys: the same ones again after a restart."""

    def __init__(self, data_dir: Path, guest_entry: str) -> None:
        self._path = data_dir / _NAME
        self._guest_entry = guest_entry
        self._secret = secrets.token_bytes(_SECRET_BYTES)

    def prepare(self) -> None:
        """Read the node's secret, or make it. Blocks."""
        try:
            found = self._path.read_bytes()
            if len(found) == _SECRET_BYTES:
                self._secret = found
                return
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("cannot read %s: %s; templates of earlier agents are made anew", self._path, error)
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(self._secret)
        except OSError as error:
            _log.warning("cannot write %s: %s; the next agent makes templates anew", self._path, error)

    def family(self, request: ContainerStart, image: BuiltImage, library_dir: str) -> str:
        """The key of all that a function template may be made for whose code is this and that are variants of one
        function: what they load may differ by their parameters only. Empty for what is held to a version."""
        of_all = replace(request, function_id=request.follows_id)
        return self.key(FUNCTION, of_all, image, library_dir) if request.follows_id else ""

    def key(self, kind: str, request: ContainerStart, image: BuiltImage, library_dir: str) -> str:
        """The key of a start.

        Args:
            kind: how much the template has loaded, as in `protocol.template`.
            library_dir: where the guest's library is, whose name says its content.
        """
        seen = {
            "kind": kind,
            "app": request.app_id,
            "guest": [self._guest_entry, library_dir],
            "image": to_wire(image.config),
            "layers": image.layers,
            "mounts": [to_wire(mount) for mount in request.mounts],
            "env": request.env,
            "secrets": request.secrets_mark,
            "is_network_blocked": request.is_network_blocked,
            "isolation": request.isolation,
        }
        if kind == FUNCTION:
            seen["function"] = request.function_id
            # What the server alone knows of a function may be new with each version; the guest alone has none of it.
            seen["version"] = request.version
            seen["resources"] = to_wire(request.resources)
            # Which versions they have by now is no reason for another template; nor is what they are called.
            seen["volumes"] = [to_wire(replace(start.mount, name="")) for start in request.volumes]
        text = json.dumps(seen, sort_keys=True).encode()
        return hashlib.blake2b(text, key=self._secret, digest_size=20).hexdigest()
