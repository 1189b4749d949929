"""What a guest is told to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.guest import Boot
from squall.server.dispatch.app.environments import shown
from squall.server.model.variant import plain_name

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.server.dispatch.control_plane import ControlPlane


def boot_of(plane: ControlPlane, container_id: str, spec: FunctionSpec, app_name: str) -> Boot:
    """For a container of that function, or for a template that is to be copied into one."""
    app = plane.apps.live.get(spec.app_id)
    functions = app.functions if app is not None else {}
    if spec.is_pinned:
        functions = plane.deployments.names_in(spec.app_id, spec.version) or functions
    return Boot(
        container_id,
        spec.app_id,
        app_name,
        spec.function_id,
        plain_name(spec),
        spec.definition,
        functions,
        spec.image_id,
        spec.timeout_s,
        spec.scaling.max_inputs,
        spec.is_interactive,
        spec.parameters,
        spec.batching is not None,
        shown(app.row.environment) if app is not None else "",
        spec.web,
    )
