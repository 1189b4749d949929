"""What operators may write, and which image it means for a Python."""

from __future__ import annotations

import pytest

from squall.agent.image.bases.python_image import DEFAULT_PYTHON_IMAGE, checked_pattern, image_for


@pytest.mark.parametrize(
    ("python_version", "image"),
    [
        ("3.10", "python:3.10-slim-bookworm"),
        ("3.11", "python:3.11-slim-bookworm"),
        ("3.11.2", "python:3.11.2-slim-bookworm"),
        ("3.13", "python:3.13-slim-trixie"),
        ("3.14", "python:3.14-slim-trixie"),
    ],
)
def test_suite_is_the_one_debian_has_near_that_python(python_version: str, image: str) -> None:
    assert image_for(DEFAULT_PYTHON_IMAGE, python_version) == image


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", DEFAULT_PYTHON_IMAGE),
        ("none", ""),
        ("docker://here:5000/py:{series}", "here:5000/py:{series}"),
        ("here/py-{series}:{suite}", "here/py-{series}:{suite}"),
    ],
)
def test_pattern_is_taken_as_it_is_meant(text: str, pattern: str) -> None:
    assert checked_pattern(text) == pattern


@pytest.mark.parametrize("text", ["python:3.11", "-x{series}", "a b:{series}", "py:{series}{other}", "py:{series}\n"])
def test_pattern_that_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be the name of an image"):
        checked_pattern(text)
