"""The file with the keys of secrets: made once, readable by its owner, whole whatever happens."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from squall.main.secret_keys import NAME, FileSecretKeys, decoded
from squall.protocol.errors import PlatformError


def test_the_key_is_made_when_it_is_first_needed_and_stays(tmp_path: Path) -> None:
    keys = FileSecretKeys(tmp_path)
    assert keys.read() == ()
    assert not (tmp_path / NAME).exists()

    (made,) = keys.make()

    assert len(made) == 32
    assert stat.S_IMODE(os.stat(tmp_path / NAME).st_mode) == 0o600
    assert FileSecretKeys(tmp_path).make() == FileSecretKeys(tmp_path).read() == (made,)
    assert os.listdir(tmp_path) == [NAME]


def test_a_rotation_has_both_keys_until_it_ends(tmp_path: Path) -> None:
    (old,) = FileSecretKeys(tmp_path).make()

    new, *others = FileSecretKeys(tmp_path).begin_rotation()
    assert others == [old]
    assert new != old
    # Whoever goes on with it makes no third one.
    assert FileSecretKeys(tmp_path).begin_rotation() == (new, old)

    assert FileSecretKeys(tmp_path).end_rotation() == (new,)
    assert FileSecretKeys(tmp_path).read() == (new,)


def test_keys_that_are_given_come_first_and_are_left_alone(tmp_path: Path) -> None:
    (of_file,) = FileSecretKeys(tmp_path).make()
    before = (tmp_path / NAME).read_bytes()
    keys = FileSecretKeys(tmp_path, (b"a" * 32, b"b" * 32))

    assert keys.is_given
    for found in (keys.read(), keys.make(), keys.begin_rotation(), keys.end_rotation()):
        assert found == (b"a" * 32, b"b" * 32, of_file)
    assert (tmp_path / NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (b"", 0o600, "it is empty"),
        (b"\xff\xfe", 0o600, "a line of it is no key"),
        (b"c2hvcnQ=\n", 0o600, "a line of it is no key"),
        (base64.b64encode(b"k" * 32), 0o644, "others may read it"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_and_never_overwritten(
    tmp_path: Path, text: bytes, mode: int, why: str
) -> None:
    path = tmp_path / NAME
    path.write_bytes(text)
    path.chmod(mode)
    keys = FileSecretKeys(tmp_path)

    for ask in (keys.read, keys.make, keys.begin_rotation, keys.end_rotation):
        with pytest.raises(PlatformError, match=why) as caught:
            ask()
        assert caught.value.code == "conflict"
        assert "SQUALL_SECRET_KEY" in caught.value.message
    assert path.read_bytes() == text
    assert FileSecretKeys(tmp_path, (b"a" * 32,)).read() == (b"a" * 32,)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(base64.b64encode(b"k" * 32))
    (tmp_path / NAME).symlink_to("elsewhere")

    with pytest.raises(PlatformError, match="cannot be read"):
        FileSecretKeys(tmp_path).make()


def test_what_a_crash_left_of_a_new_file_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.new").write_bytes(b"half")

    (made,) = FileSecretKeys(tmp_path).make()

    assert FileSecretKeys(tmp_path).read() == (made,)
    assert os.listdir(tmp_path) == [NAME]


def test_a_key_is_base64_of_32_bytes() -> None:
    key = bytes(range(32))
    assert decoded(base64.b64encode(key).decode()) == key
    for text in ("", "x", base64.b64encode(key[:31]).decode(), base64.b64encode(key).decode() + "!", "ä" * 44):
        assert decoded(text) is None
