"""The picture of distributions: it is well-formed, and each row is where its times are."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from squall.cli.start_chart import LEFT, RIGHT, WIDTH, Series, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(*series: Series) -> ElementTree.Element:
    return ElementTree.fromstring(svg("starts <here>", "p50 & p99", series))


def test_rows_are_in_order_and_medians_where_they_belong() -> None:
    root = drawn(Series("forked", (10.0, 10.0, 12.0)), Series("runc", (100.0, 110.0, 900.0), is_peer=True))

    middles = [float(one.attrib["x1"]) for one in root.iter(f"{NAMESPACE}line") if one.attrib["class"] == "mid"]
    kinds = [one.attrib["class"] for one in root.iter(f"{NAMESPACE}path")]
    texts = ["".join(one.itertext()) for one in root.iter(f"{NAMESPACE}text")]

    assert middles == sorted(middles)
    assert all(LEFT <= x <= WIDTH - RIGHT for x in middles)
    assert kinds == ["ours", "peer"]
    assert {"forked", "runc", "10 ms· 12 ms", "110 ms· 900 ms", "starts <here>"} <= set(texts)


@pytest.mark.parametrize("values", [(5.0,), (0.0, 0.0), (1e-6, 1e7)])
def test_impossible_times_stay_within_the_picture(values: tuple[float, ...]) -> None:
    for line in drawn(Series("odd", values)).iter(f"{NAMESPACE}line"):
        assert LEFT - 1 <= float(line.attrib["x1"]) <= WIDTH - RIGHT + 1


def test_even_one_that_took_long_can_be_seen() -> None:
    root = drawn(Series("forked", (*([10.0] * 5_000), 1_000.0)))

    (path,) = root.iter(f"{NAMESPACE}path")
    assert path.attrib["d"].count("M") == 2
