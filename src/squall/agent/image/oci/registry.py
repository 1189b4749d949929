"""Questions to a registry that fetch no image. No registry is named here; a short name is skopeo's to complete."""

from __future__ import annotations

import json

from squall.agent.image.bases.python_image import image_for
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output, Watch
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.skopeo import Skopeo, reference_of

_LIST_TIMEOUT_S = 15.0


def ask(name: str, settings: MachineSettings, timeout_s: float) -> None:
    """Return when a registry has this image.

    Raises:
        RegistryFailure: it has not, or there is none.
    """
    Skopeo(name, settings, Output()).run("inspect", "--raw", f"docker://{reference_of(name)}", watch=Watch(timeout_s))


def list_series(pattern: str, settings: MachineSettings, output: Output) -> tuple[str, ...]:
    """The series of Python a registry has images for, oldest first; nothing when it does not say."""
    repository, _, tag = pattern.rpartition(":")
    if "{series}" not in tag or "{" in repository or "/" in tag:
        return ()
    lines: list[str] = []
    try:
        Skopeo(repository, settings, Output(lines.append, output.is_cancelled)).run(
            "list-tags", f"docker://{repository}", watch=Watch(_LIST_TIMEOUT_S)
        )
        tags = set(json.loads("\n".join(lines))["Tags"])
    except (RegistryFailure, ValueError, KeyError, TypeError):
        return ()
    series = (f"3.{minor}" for minor in range(100))
    return tuple(one for one in series if image_for(pattern, one).rpartition(":")[2] in tags)
