"""One function in containers of several kinds, decided where it is called.

squall run examples/calls/variants.py
"""

import os

import squall

app = squall.App("variants")


@app.function(env={"MODEL": "small"})
def answer(question: str) -> str:
    return f"{os.environ['MODEL']}: {question}"


@app.function()
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@app.local_entrypoint()
def main() -> None:
    large = answer.with_options(cpu=2, memory=256, env={"MODEL": "large"}, timeout=60)
    print(answer.remote("why?"), "|", large.remote("why?"))

    many = answer.with_concurrency(max_inputs=8)
    print(len(list(many.map(["how?"] * 20))), "answers")

    # As @squall.batched() does: each caller gives one text, the code is given lists of them.
    batched = lengths.with_batching(max_batch_size=4, wait_ms=100)
    print("in batches:", list(batched.map(["a", "bb", "ccc"])))
