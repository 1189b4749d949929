"""The README's example, the second time: what `squall run` costs over the same lines as a plain script."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from bench.figure import ROOT, Absent, Context, Figure, p50

PLAIN = """
def square(x):
    print(f"squaring {x}")
    return x * x
print(square(7))
print([square(x) for x in range(10)])
print(square(3))
"""


def run(context: Context) -> Figure:
    """Whole processes: from the command to its end, with server and image there."""
    example = str(ROOT / "examples" / "hello.py")

    def hello() -> None:
        ended = context.squall("run", example)
        if ended.returncode != 0:
            raise Absent(f"squall run {example}: {(ended.stderr.strip().splitlines() or ['?'])[-1]}")

    def plain() -> None:
        subprocess.run([context.python, "-c", PLAIN], capture_output=True, check=True, timeout=60)

    hello()
    count = context.times(10)
    # In turns, so that what else the machine does falls on both.
    pairs = [(_wall_ms(hello), _wall_ms(plain)) for _ in range(count)]
    hello_ms, plain_ms = p50([pair[0] for pair in pairs]), p50([pair[1] for pair in pairs])
    return Figure(hello_ms - plain_ms, "ms", "p50 over the plain script", {"hello_ms": hello_ms, "plain_ms": plain_ms})


def _wall_ms(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
