"""Calls with one value each, run together as lists: what a model on an accelerator likes.

squall run examples/calls/batched.py
"""

import squall

app = squall.App("batched")


@app.function(max_containers=1)
@squall.batched(max_batch_size=4, wait_ms=200)
def embed(texts: list[str], scales: list[int]) -> list[tuple[int, int]]:
    print(f"a batch of {len(texts)}")
    # One run of the model for all of them; here, their lengths.
    vectors = [len(text) * scale for text, scale in zip(texts, scales, strict=True)]
    return [(vector, len(texts)) for vector in vectors]


@app.local_entrypoint()
def main():
    print(embed.remote("one text", 2))
    found = list(embed.map(["a", "bb", "ccc", "dddd", "eeeee", "ffffff"], [1] * 6))
    vectors = [vector for vector, _ in found]
    print(f"vectors {vectors}, in batches of up to {max(size for _, size in found)}")
