"""A function whose imports take long: containers begin as copies of one in which they are done.

squall run examples/cold_starts/numpy_function.py
"""

import squall

image = squall.Image.debian_slim().pip_install("numpy")
app = squall.App("cold-start-numpy", image=image)

with image.imports():
    # With the snapshot: once on each node, whatever it costs.
    import numpy


# Each container is for one input here, so that there are several to look at.
@app.function(enable_memory_snapshot=True, single_use_containers=True)
def draw(count: int) -> list[float]:
    # Each copy has randomness of its own.
    return numpy.random.random(count).tolist()


@app.local_entrypoint()
def main():
    numbers = [draw.remote(2) for _ in range(4)]
    print(f"{len(numbers)} containers drew {len({tuple(pair) for pair in numbers})} different pairs")
