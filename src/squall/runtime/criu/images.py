"""The one thing in CRIU's images that is ours to know: which user namespace the process is in.

A template is in the user namespace of its id range, and CRIU, which has to be root of the machine, is not. It would
make another user namespace for what it brings back, and no clone of that could enter the cells of the range. So the
images are made to say that the process was in the user namespace CRIU was in; on the way back it is sent into the one
that is there (`--join-ns`).

Images are a magic number or two, then records: a length and a message of Protocol Buffers. Of those only the numbers of
a few fields are known here, and what is not known stays as it is.
"""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Sequence

from squall.runtime.errors import TemplateUnfit

_LENGTH = struct.Struct("<I")
_COMMON_MAGIC = 0x54564319
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
# inventory_entry.root_ids; task_kobj_ids_entry.user_ns_id
_ROOT_IDS, _USER_NAMESPACE = 3, 10

Field = tuple[int, int, "int | bytes"]
"""Its number, its kind on the wire, its value."""


def forget_user_namespace(directory: str) -> None:
    """Let the images say that the process was in the user namespace of whoever saved it.

    Raises:
        TemplateUnfit: these are not the images of one process, or of a version that is not known.
    """
    found = glob.glob("ids-*.img", root_dir=directory)
    if len(found) != 1:
        raise TemplateUnfit(f"cannot use the template saved in {directory}: it is {len(found)} processes, not one")
    try:
        inventory = _read_record(os.path.join(directory, "inventory.img"))[1]
        of_root = _decode(_value(_decode(inventory), _ROOT_IDS, bytes))
        wanted = _value(of_root, _USER_NAMESPACE, int)
        path = os.path.join(directory, found[0])
        head, record = _read_record(path)
        fields = _decode(record)
        _value(fields, _USER_NAMESPACE, int)
    except (OSError, IndexError, ValueError, KeyError, struct.error) as error:
        raise TemplateUnfit(f"cannot use the template saved in {directory}: unknown images of CRIU") from error
    changed = _encode([(n, kind, wanted if n == _USER_NAMESPACE else value) for n, kind, value in fields])
    with open(path, "wb") as file:
        file.write(head + _LENGTH.pack(len(changed)) + changed)


def _read_record(path: str) -> tuple[bytes, bytes]:
    """The magic numbers and the first record of an image."""
    with open(path, "rb") as file:
        data = file.read()
    size = 8 if _LENGTH.unpack_from(data)[0] == _COMMON_MAGIC else 4
    (length,) = _LENGTH.unpack_from(data, size)
    return data[:size], data[size + 4 : size + 4 + length]


def _value(fields: Sequence[Field], number: int, kind: type[int] | type[bytes]) -> int | bytes:
    for found, _, value in fields:
        if found == number and isinstance(value, kind):
            return value
    raise KeyError(number)


def _decode(data: int | bytes) -> list[Field]:
    if isinstance(data, int):
        raise ValueError("a number where a message should be")
    fields: list[Field] = []
    offset = 0
    while offset < len(data):
        key, offset = _read_number(data, offset)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, offset = _read_number(data, offset)
            fields.append((number, kind, value))
            continue
        if kind == _BYTES:
            length, offset = _read_number(data, offset)
        else:
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        if offset + length > len(data):
            raise ValueError("a field is longer than its message")
        fields.append((number, kind, data[offset : offset + length]))
        offset += length
    return fields


def _read_number(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        shift, offset = shift + 7, offset + 1
        if byte < 0x80:
            return value, offset


def _encode(fields: Sequence[Field]) -> bytes:
    parts = []
    for number, kind, value in fields:
        parts.append(_number(number << 3 | kind))
        if isinstance(value, int):
            parts.append(_number(value))
        else:
            parts.append((_number(len(value)) if kind == _BYTES else b"") + value)
    return b"".join(parts)


def _number(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
