"""Names of the surface that come in a later version; a program that uses one is told so."""

from __future__ import annotations

OF_PACKAGE = frozenset(
    [
        "CloudBucketMount",
        "Cls",
        "Cluster",
        "Cron",
        "Dict",
        "Environment",
        "FilePatternMatcher",
        "Period",
        "Probe",
        "Proxy",
        "Queue",
        "Sandbox",
        "SandboxSnapshot",
        "SchedulerPlacement",
        "Secret",
        "Server",
        "Tunnel",
        "Volume",
        "Workspace",
        "asgi_app",
        "batched",
        "billing",
        "clustered",
        "concurrent",
        "enter",
        "exit",
        "experimental",
        "fastapi_endpoint",
        "forward",
        "method",
        "parameter",
        "sessioned",
        "types",
        "web_server",
        "wsgi_app",
    ]
)
OF_APP = frozenset(
    ["cls", "deploy", "get_dashboard_url", "get_tags", "info", "logs", "lookup", "sandboxes", "server", "set_tags"]
)
