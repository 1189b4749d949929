"""One step of one build, being made: what it is of, who hears of it, and how its failure is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from squall.agent.image import commands
from squall.agent.image.hidden import Hidden
from squall.agent.image.progress import Progress
from squall.protocol import image
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, ImageSpec, ImageStep

OnEvent = Callable[[BuildEvent], None]
Secrets = Mapping[str, Mapping[str, str]]
"""Variables by the names that steps have for them."""
LOOK = "\nto try it by hand: squall shell --image-step "
"""Begins the last line of the error of a step that ran in a container."""
_DOWNLOAD = re.compile(r"\s*(Get:|Fetched |Download(ing|ed) )")
"""What apt and uv say of it."""
_SHOWN = ("AWS_REGION",)
"""Beside secrets, and none: it is in the name of every image there, and what is wrong with it must be seen."""


class BuildFailed(PlatformError):
    """An image could not be built. The message names the image, the step, the cause with its last lines, a way out."""


def hidden_values(secrets: Secrets) -> Hidden:
    """What is shown of no build that was given these."""
    return Hidden([value for variables in secrets.values() for name, value in variables.items() if name not in _SHOWN])


@dataclass(frozen=True, slots=True)
class Making:
    """One step of one build, being made."""

    spec: ImageSpec
    progress: Progress
    step: ImageStep
    key: str
    event: BuildEvent
    tell: OnEvent
    secrets: Secrets = field(default_factory=dict)
    below: str = ""
    """What its layer will stand on; see `layer.store.stands_on`."""
    run_id: str = ""
    """Of the builds that share what is forced; empty for a build by itself."""
    hidden: Hidden = field(init=False)
    """What other steps were given is hidden as well: it may be in a file that this one prints."""

    def __post_init__(self) -> None:
        """Once for each step, and not for each line."""
        object.__setattr__(self, "hidden", hidden_values(self.secrets))

    @property
    def secret_env(self) -> dict[str, str]:
        """The variables that only this step sees."""
        named = (self.secrets.get(name, {}) for name in self.step.secrets)
        return {name: value for variables in named for name, value in variables.items()}

    def on_line(self, text: str) -> None:
        """Pass on a line of output."""
        self.tell(replace(self.event, kind="line", text=self.hidden.hide(text)))

    def on_download_line(self, text: str) -> None:
        """Pass on a line of a fetch if it tells of what takes long; the step itself says the rest."""
        if _DOWNLOAD.match(text):
            self.on_line(text)

    def failure(self, code: str, cause: str, tail: str, remedy: str) -> BuildFailed:
        """The error for this step."""
        what = f"step {self.event.step} of {self.event.steps} ({self.event.text})"
        cause, tail = self.hidden.hide(cause), self.hidden.hide(tail)
        lines = f"; its last lines:\n{tail}" if tail else ""
        image_id = image.image_id(self.spec)
        look = f"{LOOK}{image_id}/{self.event.step}" if commands.runs_in_container(self.step) else ""
        return BuildFailed(code, f"cannot build image {image_id}: {what} {cause}; {remedy}{lines}{look}")
