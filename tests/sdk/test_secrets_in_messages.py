"""Values of secrets that are given where they do not belong: messages and records do not repeat them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.bucket import BucketMount, BucketStart
from squall.protocol.image import ImageBuild, ImageSpec
from squall.protocol.image_shell import ImageShell
from squall.protocol.image_transfer import ImagePush
from squall.protocol.secret import SecretCreate


def do_nothing() -> None:
    """A function of somebody's."""


VALUES: Any = {"TOKEN": "hunter2"}
SLIPS: dict[str, Callable[[], object]] = {
    "bucket": lambda: squall.CloudBucketMount("the-bucket", secret=VALUES),
    "app": lambda: squall.App("a", secrets=VALUES),
    "app, in a list": lambda: squall.App("a", secrets=[VALUES]),
    "function": lambda: squall.App("a").function(secrets=[VALUES])(do_nothing),
    "registry": lambda: squall.Image.from_registry("ubuntu", secret=VALUES),
    "step": lambda: squall.Image.debian_slim().run_commands("true", secrets=[VALUES]),
    "name": lambda: squall.Secret.from_name(VALUES),
    "create": lambda: squall.Secret.objects.create(VALUES, VALUES),
}


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_a_dictionary_in_the_place_of_a_secret_is_told_without_its_values(slip: Callable[[], object]) -> None:
    with pytest.raises(InvalidError) as caught:
        slip()

    assert "hunter2" not in str(caught.value)
    assert "dict" in str(caught.value)


RECORDS = [
    SecretCreate("st-1", VALUES),
    BucketStart(BucketMount("bucket", "/x"), VALUES),
    ImageBuild(ImageSpec(()), secrets={"0": VALUES}),
    ImageShell("im-1", variables=VALUES),
    ImagePush("im-1", "name", secret=VALUES),
]


@pytest.mark.parametrize("one", RECORDS, ids=lambda one: type(one).__name__)
def test_records_do_not_show_them(one: object) -> None:
    assert "hunter2" not in repr(one)
    assert "…" in repr(one)
