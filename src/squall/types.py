"""What methods of Squall's objects return: plain records.

Each is made by one method only and has no behaviour; fields may be added in later versions.
"""

from __future__ import annotations

from squall.protocol.records import record


@record
class FunctionAutoscalerSettings:
    """What the autoscaler of a function goes by now: returned by `Function.autoscaler.settings()` and `update()`."""

    min_containers: int | None
    max_containers: int | None
    """None when the function may have as many as it needs."""
    scaledown_window: int | None
    """Seconds."""
    buffer_containers: int | None


__all__ = ["FunctionAutoscalerSettings"]
