"""How many containers a function has, and changing that while it runs.

squall run examples/calls/autoscaling.py
"""

import squall

app = squall.App("autoscaling")


@app.function(max_containers=2, scaledown_window=10)
def work(x: int) -> int:
    return x * x


@app.local_entrypoint()
def main() -> None:
    print(work.autoscaler.settings())

    # Before the rush hour: two containers wait for work, and there may be more.
    print(work.autoscaler.update(min_containers=2, max_containers=4))
    print(sum(work.map(range(100))))

    # After it, none: those that are there end when they have had nothing to do for ten seconds.
    settings = work.autoscaler.update(min_containers=None, max_containers=None)
    print("kept:", settings.min_containers, "at most:", settings.max_containers)
