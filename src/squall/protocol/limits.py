"""What may be asked for at most, checked where it is written and again by the server.

Imports nothing: every container loads what checks its decorators.
"""

from __future__ import annotations

RETRIES_MAX = 100
"""Of one input. There is a most because an input that can only fail would else hold containers for as long as somebody
wrote it should; at 60 s between attempts, a hundred take more than an hour and a half."""
CONTAINERS_MAX = 100_000
"""That a function may name as a count, wherever its app was made; what fits the nodes is less."""
TAGS_MAX = 100
"""Of one app."""
