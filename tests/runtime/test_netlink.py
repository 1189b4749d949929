"""What a server's start loads of pyroute2."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from squall.runtime.network.links import IPRoute
loaded = sorted(name for name in sys.modules if name.startswith(("pyroute2.ndb", "pyroute2.ipdb")))
import pyroute2
with pyroute2.IPRoute() as routes:
    names = [link.get_attr("IFLA_IFNAME") for link in routes.get_links()]
print(loaded, pyroute2.IPRoute is IPRoute, "lo" in names, pyroute2.NDB.__name__)
"""


@pytest.mark.long
def test_only_routes_and_links_are_loaded_and_the_rest_is_there_for_others() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)

    assert ended.stdout == "[] True True NDB\n", ended
