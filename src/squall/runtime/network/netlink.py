"""The two names of pyroute2 that are used here, without the rest of it.

`import pyroute2` loads all of its parts, twice as many as routes and links need: 50 ms of each start of a server. Its
package is therefore not run while its submodules are imported; whoever imports it afterwards gets all of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def _load(*modules: str) -> list[Any]:
    if "pyroute2" in sys.modules:
        return [importlib.import_module(module) for module in modules]
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
    # An empty package that knows where its submodules are.
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        return [importlib.import_module(module) for module in modules]
    finally:
        del sys.modules["pyroute2"]


_iproute, _exceptions = _load("pyroute2.iproute", "pyroute2.netlink.exceptions")
IPRoute: Any = _iproute.IPRoute
NetlinkError: type[Any] = _exceptions.NetlinkError
