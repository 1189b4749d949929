"""`squall shell`, as far as it needs no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from squall.cli import main
from squall.protocol.image_shell import ImageShell


@pytest.mark.parametrize("step", ["im-1", "im-1/", "/3", "im-1/0", "im-1/three", "im-1/-1"])
def test_step_that_is_none_is_wrong_usage(step: str) -> None:
    ended = CliRunner().invoke(main.squall, ["shell", "--image-step", step])

    assert ended.exit_code == 2, ended.output
    assert "write im-…/N" in ended.output


def test_step_and_function_at_once_are_wrong_usage() -> None:
    ended = CliRunner().invoke(main.squall, ["shell", "--image-step", "im-1/2", "app.py"])

    assert ended.exit_code == 2, ended.output
    assert "not both" in ended.output


def test_container_is_pointed_to_the_command_for_it() -> None:
    ended = CliRunner().invoke(main.squall, ["shell", "ct-1"])

    assert ended.exit_code == 2, ended.output
    assert "squall container exec ct-1 -- sh" in ended.output


def test_image_with_the_name_of_a_directory_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[ImageShell] = []
    monkeypatch.setattr("squall.cli.shell.open_stream", lambda method, record: asked.append(record))
    monkeypatch.setattr("squall.cli.shell.carry", lambda stream, is_raw: 0)

    CliRunner().invoke(main.squall, ["shell", "web"])

    assert [record.image for record in asked] == ["web"]
