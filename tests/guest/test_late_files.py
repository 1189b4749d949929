"""A fork of a template of an image finds the user's files, which were not there before it."""

from __future__ import annotations

import importlib.machinery
import sys

import pytest

from squall.guest import clone
from squall.protocol.guest import CODE_DIR


def test_directories_that_were_looked_at_before_the_files_came_are_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finder = importlib.machinery.FileFinder("/usr/lib")
    monkeypatch.setattr(sys, "path_importer_cache", {"/usr/lib": finder, CODE_DIR: finder, "/not/there": None})

    clone._look_again()

    assert sys.path_importer_cache == {"/usr/lib": finder}
