"""The server at work: calls in, inputs to containers, outputs back. All state is in memory, on one event loop.

What is here is soft, except for what `durable/` and `app/` write to the store: clients send again what they have no
output for, guests deliver what they could not, and agents tell what runs.

`control_plane.py` composes · `services.py` connections · `methods.py`, `streams.py` what they can ask · `function/` one
function's queue, and what goes wrong in it · `client/`, `durable/` where outputs go · `fleet/` all containers, and how
many · `app/` what is deployed · `flight/` what became of calls · `image/` what containers start from.
"""

from __future__ import annotations

from squall.server.dispatch.clock import AgeClock, ManualClock, SystemClock
from squall.server.dispatch.control_plane import ControlPlane

__all__ = ["AgeClock", "ControlPlane", "ManualClock", "SystemClock"]
