"""What a template loads ahead; by a process of its own, since this one has loaded everything."""

from __future__ import annotations

import subprocess
import sys

USER_CODE = """
import squall as modal
app = modal.App("x")
image = modal.Image.debian_slim().pip_install("a").env({"A": "1"})
@app.function(image=image, schedule=modal.Period(hours=1), retries=modal.Retries(max_retries=1))
def plain(): return 1
@app.function()
@modal.batched(max_batch_size=2, wait_ms=1)
def batched(x): return x
@app.cls(env={"A": "1"})
@modal.concurrent(max_inputs=2)
class Model:
    size: int = modal.parameter(default=1)
    @modal.enter()
    def load(self): pass
    @modal.method()
    async def run(self, x): return x
"""
SCRIPT = f"""
import sys, threading
import squall.guest.main, squall.guest.template
from squall.guest.preload import preload
preload(None)
before = set(sys.modules)
exec({USER_CODE!r}, {{"__name__": "user"}})
print(sorted(name for name in set(sys.modules) - before if name != "user"), threading.active_count())
"""


def test_forks_load_nothing_more_of_ours_and_no_thread_was_started() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stdout == "[] 1\n", ended.stderr
