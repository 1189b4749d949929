"""Images of CRIU: one number is changed, and everything that is not known stays as it is."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from squall.runtime.criu.images import forget_user_namespace
from squall.runtime.errors import TemplateUnfit

MAGICS = struct.pack("<II", 0x54564319, 0x54432030)


def field(number: int, value: int | bytes) -> bytes:
    """As Protocol Buffers write it; numbers up to 127."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


def image(record: bytes, magics: bytes = MAGICS) -> bytes:
    return magics + struct.pack("<I", len(record)) + record


def lay(directory: Path, *, user_namespace: int = 9) -> bytes:
    """Images of a process in a user namespace that is not CRIU's. Returns the part before what is changed."""
    root_ids = field(1, 1) + field(10, 7) + field(11, 8)
    inventory = field(1, 2) + field(3, root_ids) + bytes([13 << 3 | 5, 1, 2, 3, 4])
    (directory / "inventory.img").write_bytes(image(inventory))
    before = field(1, 2) + field(5, 1) + field(15, b"unknown") + bytes([14 << 3 | 1, *range(8)])
    # Above 127 a number has two bytes.
    (directory / "ids-3.img").write_bytes(image(before + bytes([10 << 3, user_namespace | 0x80, 1]) + field(12, 5)))
    return before


def test_process_is_said_to_have_been_where_criu_was(tmp_path: Path) -> None:
    before = lay(tmp_path)
    inventory = (tmp_path / "inventory.img").read_bytes()

    forget_user_namespace(str(tmp_path))
    forget_user_namespace(str(tmp_path))

    assert (tmp_path / "ids-3.img").read_bytes() == image(before + field(10, 7) + field(12, 5))
    assert (tmp_path / "inventory.img").read_bytes() == inventory


def test_several_processes_are_no_template(tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "ids-4.img").write_bytes(image(b""))

    with pytest.raises(TemplateUnfit, match="it is 2 processes, not one"):
        forget_user_namespace(str(tmp_path))


@pytest.mark.parametrize("damaged", ["inventory.img", "ids-3.img"])
@pytest.mark.parametrize("data", [b"", MAGICS, image(b"\x52\x7f"), image(b"\x0b"), image(field(1, 1)), image(b"\xff")])
def test_images_of_another_form_are_refused_as_they_are(tmp_path: Path, damaged: str, data: bytes) -> None:
    lay(tmp_path)
    (tmp_path / damaged).write_bytes(data)

    with pytest.raises(TemplateUnfit, match="unknown images of CRIU"):
        forget_user_namespace(str(tmp_path))
    assert (tmp_path / damaged).read_bytes() == data
