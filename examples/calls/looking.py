"""What calls did: for_each waits without results, call graphs say who called whom, stats how many and how long.

squall run examples/calls/looking.py
"""

import squall

app = squall.App("looking")


@app.function()
def part(x: int) -> int:
    return x + 1


@app.function()
def whole(count: int) -> int:
    return sum(part.map(range(count)))


@app.local_entrypoint()
def main() -> None:
    part.for_each(range(5), ignore_exceptions=True)

    call = whole.spawn(3)
    print("result:", call.get())
    (root,) = call.get_call_graph()
    print(root.function_name, root.status.name, "called", [child.function_name for child in root.children])

    stats = part.stats()
    print("how long they ran:", stats.input_percentile_stats["run_time"])
    print("succeeded:", stats.input_success_count, "failed:", stats.input_failure_count)
