"""A call that fails keeps its arguments: it can be run again, also in the debugger on your machine.

squall run examples/calls/replay.py
squall call list --failed
squall call show fc-…                    # where its time went, and the traceback
squall call replay fc-… --index 2        # again in a container
squall call replay fc-… --index 2 --local --file examples/calls/replay.py
"""

from __future__ import annotations

import squall as modal

app = modal.App("replay")


@app.function()
def share(total: int, people: int) -> float:
    return total / people


@app.local_entrypoint()
def main() -> None:
    shares = list(share.starmap([(90, 3), (10, 4), (5, 0)], return_exceptions=True))
    failed = [index for index, one in enumerate(shares) if isinstance(one, Exception)]
    print(f"{shares[:2]}, and input {failed[0]} failed: {shares[2]}")
