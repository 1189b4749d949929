"""Which starts share a template."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from squall.agent.image.progress import BuiltImage
from squall.agent.template.key import TemplateKeys, of_image
from squall.protocol.function import GVISOR, Resources
from squall.protocol.image import ImageConfig
from squall.protocol.mount import MountRef
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace
from squall.protocol.template import FUNCTION, IMAGE

START = ContainerStart("ct-0000000001", "ap-1", "fu-1", "im-1", (MountRef("mo-1", "/root"),), {"A": "1"}, version=3)
BUILT = BuiltImage("im-1", ("/layers/1",), ImageConfig(python_path="/usr/bin/python3"))


def keys(data_dir: Path, guest_entry: str = "/entry") -> TemplateKeys:
    made = TemplateKeys(data_dir, guest_entry)
    made.prepare()
    return made


def key(
    data_dir: Path,
    kind: str = FUNCTION,
    image: BuiltImage = BUILT,
    library: str = "/l",
    guest_entry: str = "/entry",
    **changes: Any,
) -> str:
    return keys(data_dir, guest_entry).key(kind, replace(START, **changes), image, library)


def test_who_a_container_is_makes_no_difference_and_neither_does_a_restart(tmp_path: Path) -> None:
    assert key(tmp_path) == key(tmp_path, container_id="ct-0000000002")


@pytest.mark.parametrize(
    "changes",
    [
        {"function_id": "fu-2"},
        {"app_id": "ap-2"},
        {"version": 4},
        {"mounts": (MountRef("mo-2", "/root"),)},
        {"mounts": (MountRef("mo-1", "/other"),)},
        {"env": {"A": "2"}},
        {"env": {}},
        {"secrets_mark": "st-1:2"},
        {"resources": Resources(cpu_milli=1_000)},
        {"resources": Resources(memory_limit_mib=100)},
        {"is_network_blocked": True},
        {"isolation": GVISOR},
        {"kind": IMAGE},
        {"library": "/other"},
        {"guest_entry": "/other"},
        {"image": BuiltImage("im-1", ("/layers/2",), BUILT.config)},
        {"image": BuiltImage("im-1", BUILT.layers, replace(BUILT.config, workdir="/srv"))},
    ],
)
def test_what_can_be_seen_in_a_process_makes_another_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert key(tmp_path, **changes) != key(tmp_path)


def test_of_secrets_it_has_the_mark_and_not_the_values(tmp_path: Path) -> None:
    assert key(tmp_path, secrets={"A": "1"}, secrets_mark="st-1:1") == key(tmp_path, secrets_mark="st-1:1")
    assert key(tmp_path, kind=IMAGE, secrets_mark="st-1:1") != key(tmp_path, kind=IMAGE)


def test_a_family_is_of_all_objects_of_a_class_while_their_code_is_one(tmp_path: Path) -> None:
    def family(**changes: Any) -> str:
        return keys(tmp_path).family(replace(START, **{"follows_id": "fu-class", **changes}), BUILT, "/l")

    assert family() == family(function_id="fu-2")
    others = ({"follows_id": "fu-2"}, {"version": 4}, {"mounts": ()}, {"resources": Resources(memory_mib=100)})
    assert len({family(), *(family(**changes) for changes in others)}) == 5
    assert family(follows_id="") == "", "what is held to a version has none"


@pytest.mark.parametrize(
    "changes", [{"version": 4}, {"function_id": "fu-2"}, {"resources": Resources(cpu_milli=1_000)}], ids=str
)
def test_what_is_a_functions_alone_is_nothing_to_the_guest(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert key(tmp_path, IMAGE, **changes) == key(tmp_path, IMAGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"app_id": "ap-2"},
        {"env": {"A": "2"}},
        {"is_network_blocked": True},
        {"isolation": GVISOR},
        {"guest_entry": "/other"},
    ],
    ids=str,
)
def test_what_the_guest_begins_with_is_its_own(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert key(tmp_path, IMAGE, **changes) != key(tmp_path, IMAGE)


def test_of_an_image_there_are_no_files_unless_they_are_loaded(tmp_path: Path) -> None:
    assert of_image(START, has_files=False).mounts == ()
    assert of_image(START, has_files=True).mounts == START.mounts
    assert of_image(START, has_files=True).env == START.env


def test_a_key_cannot_be_made_elsewhere_to_try_out_secrets(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()

    assert key(tmp_path / "here") != key(tmp_path / "elsewhere")
    assert (tmp_path / "here" / "template-key").stat().st_mode & 0o077 == 0


def test_a_secret_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    before = key(tmp_path)
    os.truncate(tmp_path / "template-key", 3)

    assert key(tmp_path) == key(tmp_path) != before


def test_without_room_for_the_secret_there_are_keys_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    made = keys(tmp_path)

    assert made.key(IMAGE, START, BUILT, "/l") == made.key(IMAGE, START, BUILT, "/l")
