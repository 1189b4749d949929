"""One step of one build, being made: what it is of, who hears of it, and how its failure is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from squall.agent.image import commands
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
_HIDDEN_CHARS_MIN = 4
"""Shorter values are in every other line by chance."""


class BuildFailed(PlatformError):
    """An image could not be built. The message names the image, the step, the cause with its last lines, a way out."""


def hide(text: str, values: Iterable[str]) -> str:
    """A text without these."""
    # Output comes line by line, and so does a key of many lines. The longest first: one may contain another.
    parts = {line.strip() for value in values for line in (value, *value.splitlines())}
    for value in sorted(parts, key=len, reverse=True):
        if len(value) >= _HIDDEN_CHARS_MIN:
            text = text.replace(value, "***")
    return text


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

    @property
    def secret_env(self) -> dict[str, str]:
        """The variables that only this step sees."""
        named = (self.secrets.get(name, {}) for name in self.step.secrets)
        return {name: value for variables in named for name, value in variables.items()}

    def on_line(self, text: str) -> None:
        """Pass on a line of output."""
        self.tell(replace(self.event, kind="line", text=self.hidden(text)))

    def hidden(self, text: str) -> str:
        """A text without the values of secrets."""
        return hide(text, self.secret_env.values())

    def on_download_line(self, text: str) -> None:
        """Pass on a line of a fetch if it tells of what takes long; the step itself says the rest."""
        if _DOWNLOAD.match(text):
            self.on_line(text)

    def failure(self, code: str, cause: str, tail: str, remedy: str) -> BuildFailed:
        """The error for this step."""
        what = f"step {self.event.step} of {self.event.steps} ({self.event.text})"
        lines = f"; its last lines:\n{self.hidden(tail)}" if tail else ""
        image_id = image.image_id(self.spec)
        look = f"{LOOK}{image_id}/{self.event.step}" if commands.runs_in_container(self.step) else ""
        return BuildFailed(code, f"cannot build image {image_id}: {what} {cause}; {remedy}{lines}{look}")
