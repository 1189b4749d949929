"""`squall curl`: who is told its token."""

from __future__ import annotations

import pytest

from squall.cli.curl import is_of
from squall.protocol.web import WebAddress

ADDRESS = WebAddress(
    "fu-1", "site", "", "shop-site", "http://shop-site.localhost:7855", "http://127.0.0.1:7855/w/shop-site",
    ("api.example.com",),
)  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "http://shop-site.localhost:7855",
        "http://SHOP-SITE.localhost:7855/a?b=c#d",
        "http://127.0.0.1:7855/w/shop-site",
        "http://127.0.0.1:7855/w/shop-site/a",
        "https://api.example.com/a",
    ],
)
def test_addresses_of_a_function(url: str) -> None:
    assert is_of(url, ADDRESS)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop-site.localhost:7855@evil.example/",
        "http://evil.example\\\\@api.example.com/",
        "http://shop-site.localhost:1/",
        "http://shop-site.localhost.evil.example:7855/",
        "http://{shop-site.localhost,evil.example}:7855/",
        "https://shop-site.localhost:7855/",
        "http://127.0.0.1:7855/w/shop-sites/",
        "http://127.0.0.1:7855/",
        "http://127.0.0.1:7856/w/shop-site/",
        "http://evil.example/w/shop-site/",
    ],
)
def test_what_is_none_of_them(url: str) -> None:
    assert not is_of(url, ADDRESS)
