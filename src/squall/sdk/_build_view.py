"""How builds of images look to a person: which step, for how long, how large, what was there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.sdk._terminal_text import size_text

if TYPE_CHECKING:
    from squall.protocol.image import BuildEvent

_LABEL_CHARS = 9


class _Shown:
    """One build, as far as it was shown."""

    def __init__(self) -> None:
        self.cached: list[str] = []
        """Lines about steps that were there already, for when the first one is not."""
        self.cached_count = 0
        self.step: BuildEvent | None = None
        """The one that runs."""
        self.step_began_at = 0.0
        self.began_at: float | None = None
        """When the first step began that was not there already."""
        self.size_bytes = 0


class BuildView:
    """Turns events into lines. An image that is all there already says nothing."""

    def __init__(self) -> None:
        self._builds: dict[str, _Shown] = {}
        """Those under way."""
        self._has_labels = False

    def lines(self, image_id: str, event: BuildEvent, now: float) -> list[str]:
        """What to show for an event."""
        build = self._builds.setdefault(image_id, _Shown())
        self._has_labels = self._has_labels or len(self._builds) > 1
        build.size_bytes += event.size_bytes
        place = f"[{self._label(image_id)}{event.step}/{event.steps}]"
        if event.kind == "cached":
            # Without a layer nothing had to be made, so nothing was spared.
            has_layer = event.size_bytes > 0
            build.cached_count += has_layer
            line = f"{place} {event.text}" + (f" · cached{_size(event.size_bytes)}" if has_layer else "")
            if build.began_at is not None:
                return [line]
            build.cached.append(line)
        elif event.kind == "step":
            held, build.cached = build.cached, []
            build.step, build.step_began_at = event, now
            build.began_at = now if build.began_at is None else build.began_at
            return [*held, f"{place} {event.text}"]
        elif event.kind == "line":
            return [f"    {self._label(image_id)}{event.text}"]
        elif event.kind == "done":
            build.step = None
            return [f"{place} done in {event.duration_s:.1f} s{_size(event.size_bytes)}"]
        elif event.kind == "built":
            del self._builds[image_id]
            if build.began_at is not None:
                cached = f", {build.cached_count} of its steps cached" if build.cached_count else ""
                return [f"{image_id} built in {now - build.began_at:.1f} s{_size(build.size_bytes)}{cached}"]
        return []

    def forget(self, image_id: str) -> None:
        """A build has failed, or is not followed any more."""
        self._builds.pop(image_id, None)

    def status(self, now: float) -> str:
        """The steps that run now and for how long, in one line; empty when none does."""
        running = [
            f"[{self._label(image_id)}{build.step.step}/{build.step.steps}] {build.step.text[:40].rstrip()} "
            f"{now - build.step_began_at:.0f} s"
            for image_id, build in self._builds.items()
            if build.step is not None
        ]
        return "  ".join(running)

    def _label(self, image_id: str) -> str:
        return f"{image_id[:_LABEL_CHARS]} " if self._has_labels else ""


def _size(size_bytes: int) -> str:
    """` · 71 MB`; nothing for nothing."""
    return f" · {size_text(size_bytes)}" if size_bytes > 0 else ""
