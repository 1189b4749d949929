"""The server at work: calls in, inputs to containers, outputs back. All state is in memory, on one event loop.

What is here is soft, except for what `durable.py` and `apps.py` write to the store: clients send again what they have
no output for, guests deliver what they could not, and agents tell what runs.

`control_plane.py` composes · `services.py` connections · `methods.py`, `streams.py` what they can ask · `dispatcher.py`
one function's queue, `attempts.py` what goes wrong in it · `client.py`, `durable.py` where outputs go · `fleet.py` all
containers, `scaling.py` how many.
"""

from __future__ import annotations

from squall.server.dispatch.clock import ManualClock, SystemClock
from squall.server.dispatch.control_plane import ControlPlane

__all__ = ["ControlPlane", "ManualClock", "SystemClock"]
