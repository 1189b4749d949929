"""What a start needs of volumes before it is known by which path it comes about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from squall.agent.volume.contents import Progress
from squall.agent.volume.trees import VolumeTrees
from squall.protocol.volume import VolumeStart


class VolumeHold:
    """Versions that are fetched for one start, and stay on the node until it has them mounted.

    Args:
        changed: told when there are more.
    """

    def __init__(self, trees: VolumeTrees, changed: Callable[[], None]) -> None:
        self._trees = trees
        self._changed = changed
        self.starts: list[VolumeStart] = []

    async def fetch(self, starts: Sequence[VolumeStart], progress: Progress | None = None) -> None:
        """Have these versions here, with all contents of their files.

        Args:
            progress: counted up meanwhile.

        Raises:
            PlatformError: one cannot be had.
            OSError: the disk takes no more.
        """
        self.starts += starts
        self._changed()
        for start in starts:
            await self._trees.image(start.mount.volume_id, start.version, start.root, progress)
