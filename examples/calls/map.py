"""One function over many inputs: in order, as they come, with failures in their place, and from an endless iterator."""

import itertools
from collections.abc import Iterator

import squall

app = squall.App("map")


@app.function()
def word_count(text: str) -> int:
    return len(text.split())


@app.function()
def scaled(value: float, factor: float, offset: float = 0.0) -> float:
    return value * factor + offset


@app.function()
def inverse(x: int) -> float:
    return 1 / x


def lines() -> Iterator[str]:
    """Pulled as the map gets on: what has no end does not fill any memory."""
    for number in itertools.count(1):
        yield "word " * number


@app.local_entrypoint()
def main() -> None:
    counts = list(itertools.islice(word_count.map(lines()), 100))
    print("in order:", counts == list(range(1, 101)))

    unordered = set(word_count.map(["one", "one two"], order_outputs=False))
    print("as they come:", unordered)

    print("zipped:", list(scaled.map([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], kwargs={"offset": 0.5})))
    print("tuples:", list(scaled.starmap([(1.0, 2.0), (3.0, 4.0)])))

    kinds = [type(one).__name__ for one in inverse.map(range(3), return_exceptions=True)]
    print("failures in their place:", kinds)
