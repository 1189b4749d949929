"""What the autoscaler of a function goes by, as it can be changed while the function runs."""

from __future__ import annotations

from squall.protocol.records import record


@record
class AutoscalerGet:
    """Ask what the autoscaler of a function goes by now."""

    function_id: str


@record
class AutoscalerUpdate:
    """Change it, until the next deploy of the app; what is None stays as it is."""

    function_id: str
    min_containers: int | None = None
    max_containers: int | None = None
    is_unbounded: bool = False
    """Take the maximum away."""
    buffer_containers: int | None = None
    scaledown_window_s: float | None = None
    target_inputs: int | None = None
    """Of an app's server."""
    is_untargeted: bool = False
    """Aim at as many as a container may run at once."""
    scaleup_window_s: float | None = None
    """Of an app's server."""


@record
class AutoscalerSettings:
    """What it goes by now."""

    min_containers: int
    max_containers: int | None
    """None: the server's own limit only."""
    buffer_containers: int
    scaledown_window_s: float
    target_inputs: int | None = None
    """None: as many as a container may run at once."""
    scaleup_window_s: float = 0.0
