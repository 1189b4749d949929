"""Names of the surface that come in a later version; a program that uses one is told so."""

from __future__ import annotations

OF_PACKAGE = frozenset(
    [
        "Client",
        "Cluster",
        "Probe",
        "Proxy",
        "Sandbox",
        "SandboxSnapshot",
        "SchedulerPlacement",
        "billing",
        "clustered",
        "container_process",
        "experimental",
        "io_streams",
        "sessioned",
        "stream_type",
    ]
)
OF_APP = frozenset(
    [
        "get_dashboard_url",
        "sandboxes",
    ]
)
OF_CLS = frozenset(["client", "get_dashboard_url"])
OF_ENVIRONMENT = frozenset(["billing", "client", "get_dashboard_url", "roles"])
OF_FUNCTION = frozenset(
    [
        "client",
        "get_dashboard_url",
        "metrics",
    ]
)
OF_SERVER = frozenset(["client", "get_dashboard_url", "metrics", "sessions"])
OF_WORKSPACE = frozenset(
    [
        "billing",
        "client",
        "get_dashboard_url",
        "hydrate",
        "member_tokens",
        "members",
        "object_id",
        "service_users",
        "settings",
    ]
)
OF_FUNCTION_CALL = frozenset(["client", "get_dashboard_url"])


INSTEAD = {
    "Conda": "write Image.micromamba()",
    "Mount": "add the files to the image, as in image.add_local_dir(…)",
    "NetworkFileSystem": "squall.Volume takes its place",
    "Stub": "it is called squall.App",
    "build": "write image.run_function(…)",
    "call_graph": "what get_call_graph() returns is in squall.types",
    "config": "settings are variables of the environment, such as SQUALL_SERVER_URL and SQUALL_ENVIRONMENT",
    "gpu": 'GPUs are named by a string, as in gpu="A100:2"',
    "output": "write squall.enable_output()",
    "runner": "write app.run() or app.deploy()",
    "web_endpoint": "squall.fastapi_endpoint takes its place",
}
"""Names that programs of elsewhere have or had in the package, and what to write for them; they do not come."""


def of_package(name: str) -> str:
    """What to say where the package has no such name; empty of one that is nowhere known."""
    if name in INSTEAD:
        return f"there is no squall.{name}: {INSTEAD[name]}"
    return f"squall.{name} is not in this version of Squall yet" if name in OF_PACKAGE else ""


def absent(owner: object, names: frozenset[str], name: str) -> object:
    """What `__getattr__` of an object does; of its attributes, `names` come later.

    Python asks that, too, where a property is there and raises AttributeError; what it has to say is said then.

    Raises:
        AttributeError: there is no such attribute, or none now.
    """
    there = getattr(type(owner), name, None)
    if isinstance(there, property):
        return there.__get__(owner)
    raise missing(type(owner).__name__, names, name)


def missing(kind: str, names: frozenset[str], name: str) -> AttributeError:
    """What to raise where an object of that kind has no such attribute; `names` come later."""
    if name in names:
        return AttributeError(f"{kind}.{name} is not in this version of Squall yet")
    return AttributeError(f"{kind!r} object has no attribute {name!r}")
