"""What users give to the methods of an image: checked before it becomes part of a step.

Raises:
    InvalidError: with the method, what was given, and what to give.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.file_pattern_matcher import IgnoreArgument
    from squall.sdk.secret import Secret

HIDDEN = ("/dev", "/proc", "/run/squall", "/sys")
"""What containers have of the system at these places covers the image's own files there."""


def refuse_later(method: str, **given: object) -> None:
    """What there will be, and is not there yet."""
    for name, value in given.items():
        if value:
            raise InvalidError(f"Image.{method}: {name}= is not in this version of Squall yet; leave it out")


def version_of_python(method: str, parameter: str, given: str | None) -> str:
    """A version as `3.11`; without one, that of the Python running this."""
    if given is None:
        return f"{sys.version_info[0]}.{sys.version_info[1]}"
    parts = given.split(".") if isinstance(given, str) else []
    if not 2 <= len(parts) <= 3 or parts[0] != "3" or not all(part.isdigit() for part in parts):
        raise InvalidError(f"Image.{method}({parameter}={given!r}): write a version such as '3.11'")
    return given


def pip_options(
    method: str,
    find_links: str | None,
    index_url: str | None,
    extra_index_url: str | None,
    pre: bool,
    extra_options: str,
) -> dict[str, Any]:
    """What steps of pip and uv have in common."""
    check_options(method, extra_options)
    return {
        "find_links": find_links or "",
        "index_url": index_url or "",
        "extra_index_url": extra_index_url or "",
        "pre": pre,
        "extra_options": extra_options,
    }


def check_options(method: str, extra_options: str) -> None:
    """Refuse options of pip and uv that a step cannot take."""
    if not extra_options:
        return
    from squall.protocol.image_steps import options_problem  # cold start: few images have such options

    what = f"Image.{method}(extra_options={extra_options!r})"
    if not isinstance(extra_options, str):
        raise InvalidError(f"{what}: give one string, as on a command line")
    problem = options_problem(extra_options)
    if problem:
        raise InvalidError(f"{what}: {problem}")


def package_names(method: str, given: tuple[str | list[str], ...]) -> tuple[str, ...]:
    """What is to be installed; options have a parameter of their own."""
    names = texts_of(method, given)
    options = [name for name in names if name.startswith("-")]
    if options:
        raise InvalidError(f"Image.{method}({options[0]!r}): that is an option; give it as extra_options=")
    return names


def secrets_of(method: str, given: Sequence[Secret] | None) -> tuple[Secret, ...]:
    """As a step keeps them."""
    found = tuple(given or ())
    if not found:
        return ()
    from squall.sdk.secret import Secret  # cold start: images with secrets only

    wrong = [one for one in found if not isinstance(one, Secret)]
    if wrong:
        raise InvalidError(f"Image.{method}(secrets=[a {type(wrong[0]).__name__}]): give objects of squall.Secret")
    return found


def volumes_of(method: str, given: object) -> dict[str, Mounted]:
    """As a step keeps them, by the path that each is mounted at."""
    if not given:
        return {}
    from squall.sdk._volume_mounts import check_volumes  # cold start: images with volumes only

    return check_volumes(given, f"Image.{method}")


def texts_of(method: str, given: tuple[str | list[str], ...]) -> tuple[str, ...]:
    """Strings, however they were given: one by one, or as lists."""
    found: list[str] = []
    for one in given:
        texts = [one] if isinstance(one, str) else one
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            raise InvalidError(f"Image.{method}({one!r}): give strings, or lists of strings")
        found.extend(texts)
    return tuple(found)


def words_of(method: str, given: list[str] | str) -> tuple[str, ...]:
    """The words of a command line."""
    if isinstance(given, str):
        raise InvalidError(f"Image.{method}({given!r}): give a list of words, such as {given.split()!r}")
    return texts_of(method, (given,))


def absolute_target(method: str, path: str) -> str:
    """Where files come to lie, in the shortest words."""
    text = os.path.normpath(str(path))
    if not text.startswith("/"):
        raise InvalidError(f"Image.{method}(…, {path!r}): the target must be an absolute path")
    text = "/" + text.lstrip("/")  # two slashes at the beginning are left alone by normpath
    place = next((place for place in HIDDEN if f"{text}/".startswith(f"{place}/")), None)
    if place is not None:
        raise InvalidError(
            f"Image.{method}(…, {path!r}): containers have a {place} of their own, which would hide the files; choose "
            "another target"
        )
    return text


def check_ignore(ignore: IgnoreArgument) -> None:
    """Refuse what cannot say which files to leave out."""
    from squall.sdk.file_pattern_matcher import as_predicate  # cold start: only for images that name files

    as_predicate(ignore)
