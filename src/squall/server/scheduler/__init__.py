"""Decide which node each pending container goes to, and whose turn it is.

Told of every change, asked for a plan; nothing here reads the clock or the network. The caller carries placements out,
and a node may refuse: refused containers are simply pending again. What is claimed of each node, and which nodes come
first, is kept as it changes (`cluster.py`), so that a decision among a thousand nodes does not look at all of them; a
test holds that to what a look at everything would give.

Invariants of a plan:
  * a container appears at most once
  * for every node, what is placed and what runs claims no more cpu and memory than it has, and no more containers
  * a draining node receives nothing, nor does one that said it lacks the image
  * nobody is placed while somebody with a smaller share waits for the same (`turns.py`)

A *claim* is what the user requested with cpu= and memory=. Who requested nothing claims no cpu, and `MEMORY_FLOOR_MIB`
of memory. A container whose inputs all wait for their own calls claims no cpu: it does nothing, and without that a
full machine of waiting parents would wait for ever.

A *share* is what an app, or one of its functions, has of all nodes: a thousand for each container, and more for what it
claims (`Claim.weight`).
"""

from __future__ import annotations

from squall.server.scheduler.claim import MEMORY_FLOOR_MIB, Claim, Pending, Placement
from squall.server.scheduler.cluster import NodeView
from squall.server.scheduler.giving_way import Answer
from squall.server.scheduler.scheduler import PLACEMENTS_MAX, Plan, Scheduler

__all__ = [
    "MEMORY_FLOOR_MIB",
    "PLACEMENTS_MAX",
    "Answer",
    "Claim",
    "NodeView",
    "Pending",
    "Placement",
    "Plan",
    "Scheduler",
]
