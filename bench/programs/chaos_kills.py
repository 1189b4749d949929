"""What is killed, and in which order: drawn from a seed, and of each kind for sure."""

from __future__ import annotations

import random
from collections import Counter

WEIGHTS = {"container": 6, "template": 2, "server": 2, "agent": 2, "spawner": 1}
"""How often each kind is drawn."""


class Kills:
    """So many kills in an order that is the seed's: each kind once, the others drawn by weight, and all shuffled.

    How long they take is the machine's affair, so whoever is killed works until all are done, and not for a time or for
    a number of calls: these are over before some kind was drawn. Until the end comes there are more, drawn by weight.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._rng = random.Random(f"{seed} kills")
        self._due = [*WEIGHTS, *self._drawn(count - len(WEIGHTS))]
        self._rng.shuffle(self._due)
        self.done: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """All that were due are done."""
        return not self._due

    def next(self) -> str:
        """What is to be killed now."""
        if self._due:
            return self._due[0]
        return self._drawn(1)[0]

    def put_off(self) -> None:
        """It cannot be killed now, or is not to be: the others come first."""
        if self._due:
            self._due.append(self._due.pop(0))

    def note(self, kind: str) -> None:
        """What came next was killed."""
        self.done[kind] += 1
        if self._due:
            self._due.remove(kind)

    def _drawn(self, count: int) -> list[str]:
        return self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=max(0, count))
