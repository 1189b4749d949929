"""Users of an image, as it says itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent.image.layer.merged import merged
from squall.agent.image.layer.users import UnknownUser, find_user

PASSWD = """root:x:0:0:root:/root:/bin/bash
app:x:1000:1001:,,,:/home/app:/bin/sh
bad:x:x:0::/:
short:x
big:x:99999:0::/:
"""
GROUP = "root:x:0:\nstaff:x:50:app\n"


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    (tmp_path / "1/etc").mkdir(parents=True)
    (tmp_path / "1/etc/passwd").write_text(PASSWD)
    (tmp_path / "1/etc/group").write_text(GROUP)
    return [str(tmp_path / "1")]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", (0, 0, "/root")),
        ("root", (0, 0, "/root")),
        ("app", (1000, 1001, "/home/app")),
        ("1000", (1000, 1001, "/home/app")),
        ("app:staff", (1000, 50, "/home/app")),
        ("app:7", (1000, 7, "/home/app")),
        ("1234", (1234, 0, "")),
        ("1234:5", (1234, 5, "")),
    ],
)
def test_user_is_found(layers: list[str], name: str, found: tuple[int, int, str]) -> None:
    with merged(layers) as tree:
        assert tuple(find_user(tree, name)) == found


@pytest.mark.parametrize("name", ["nobody", "app:nogroup", "bad", "99999", "big", "1:99999", "123456789012345678901"])
def test_user_that_is_none_is_refused(layers: list[str], name: str) -> None:
    with merged(layers) as tree, pytest.raises(UnknownUser):
        find_user(tree, name)


def test_image_without_accounts_has_numbers_only(tmp_path: Path) -> None:
    with merged([str(tmp_path)]) as tree:
        assert find_user(tree, "12") == (12, 0, "")
        with pytest.raises(UnknownUser, match="useradd app"):
            find_user(tree, "app")
