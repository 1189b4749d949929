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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--image-step", "im-1/2", "app.py"], "not both --image-step and 'app.py'"),
        (["--image", "debian:12", "im-1"], "not both --image and 'im-1'"),
        (["--image", "debian:12", "--image-step", "im-1/2"], "not both --image-step and '--image'"),
        (["--add-python", "3.12"], "give that by --image"),
        (["--add-local", ".", "ct-1"], "--add-local is for images"),
        (["--add-local", "/nowhere", "im-1"], "'/nowhere' does not exist"),
        (["sb-1"], "sandboxes are not in this version"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(given: list[str], message: str) -> None:
    ended = CliRunner().invoke(main.squall, ["shell", *given])

    assert ended.exit_code == 2, ended.output
    assert message in ended.output


def test_image_with_the_name_of_a_directory_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "web").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[ImageShell] = []
    monkeypatch.setattr("squall.cli.shell.open_stream", lambda method, record: asked.append(record))
    monkeypatch.setattr("squall.cli.shell.carry", lambda stream, is_raw: 0)

    CliRunner().invoke(main.squall, ["shell", "web"])

    assert [record.image for record in asked] == ["web"]
