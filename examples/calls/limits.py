"""What a container may use, and containers that serve one input each.

squall run examples/calls/limits.py
"""

import os

import squall

app = squall.App("limits")


# (request, limit): half a core is kept free for it, and it gets two at most; past 256 MiB it is ended.
@app.function(cpu=(0.5, 2), memory=(64, 256), ephemeral_disk=512)
def fill(mib: int) -> str:
    filled = bytearray(mib * 2**20)
    return f"{len(filled) // 2**20} MiB fit"


# For code that leaves something behind: each input finds a container that nobody has used.
@app.function(single_use_containers=True, max_containers=4)
def once() -> bool:
    is_fresh = not os.path.exists("/tmp/used")
    open("/tmp/used", "w").close()
    return is_fresh


@app.local_entrypoint()
def main() -> None:
    print(fill.remote(100))
    try:
        print(fill.remote(1_000))
    except squall.exception.RemoteError as error:
        print("too much:", error)
    print("all fresh:", all(once.remote() for _ in range(3)))
