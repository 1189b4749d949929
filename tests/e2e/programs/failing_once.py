"""A hook that fails the first time that it is run, as one does whose download meets a server that is busy."""

from __future__ import annotations

import itertools

import squall

app = squall.App("failing-once")
attempts = itertools.count(1)


@app.function()
def attempt() -> int:
    """The same container counts for all that ask."""
    return next(attempts)


@app.cls(enable_memory_snapshot=True, single_use_containers=True)
class Downloading:
    @squall.enter(snap=True)
    def load(self) -> None:
        self.attempt = attempt.remote()
        if self.attempt == 1:
            raise TimeoutError("the server did not answer")

    @squall.method()
    def which(self) -> int:
        return self.attempt
