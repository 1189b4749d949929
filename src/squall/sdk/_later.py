"""Names of the surface that come in a later version; a program that uses one is told so."""

from __future__ import annotations

OF_PACKAGE = frozenset(
    [
        "CloudBucketMount",
        "Cluster",
        "Dict",
        "Probe",
        "Proxy",
        "Queue",
        "Sandbox",
        "SandboxSnapshot",
        "SchedulerPlacement",
        "Server",
        "Tunnel",
        "Volume",
        "Workspace",
        "asgi_app",
        "billing",
        "clustered",
        "experimental",
        "fastapi_endpoint",
        "forward",
        "sessioned",
        "web_server",
        "wsgi_app",
    ]
)
OF_SECRET = frozenset(["from_name", "info", "name", "object_id", "objects", "update"])
OF_APP = frozenset(
    [
        "get_dashboard_url",
        "sandboxes",
        "server",
    ]
)
OF_ENVIRONMENT = frozenset(["billing", "roles"])
OF_FUNCTION = frozenset(
    [
        "client",
        "get_dashboard_url",
        "get_web_url",
        "metrics",
    ]
)
OF_FUNCTION_CALL = frozenset(["client", "get_dashboard_url"])


INSTEAD = {("Function", "update_autoscaler"): ".autoscaler.update(…)"}
"""What is not to come, and what to write for it."""


def missing(kind: str, names: frozenset[str], name: str) -> AttributeError:
    """What to raise where an object of that kind has no such attribute; `names` come later."""
    if (kind, name) in INSTEAD:
        return AttributeError(f"{kind}.{name} is deprecated where it comes from; write {INSTEAD[kind, name]}")
    if name in names:
        return AttributeError(f"{kind}.{name} is not in this version of Squall yet")
    return AttributeError(f"{kind!r} object has no attribute {name!r}")
