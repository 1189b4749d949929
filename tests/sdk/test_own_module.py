"""What is said of a module that an image lacks, by whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.protocol.call import Failure, encode_failure
from squall.sdk._failure import to_exception
from squall.sdk._serialization import encode_exception

SAID = "cannot load function f: No module named {name!r}. The image has no package {package!r}: add it with pip_install"


def message_of(name: str) -> str:
    """Of the error that is raised where a container lacks that module."""
    said = SAID.format(name=name, package=name.partition(".")[0])
    return str(to_exception(encode_failure(Failure(kind="import", message=said, type_name="ModuleNotFoundError"))))


@pytest.mark.parametrize("made", ["own_helper.py", "own_helper/__init__.py", "own_helper/part.py"])
def test_module_beside_the_program_is_added_and_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    for name in ("own_helper", "own_helper.part"):
        message = message_of(name)
        assert message.startswith(f"cannot load function f: No module named {name!r}. It is yours ({tmp_path}"), message
        assert message.endswith("add it with image.add_local_python_source('own_helper')"), message
        assert "pip_install" not in message


@pytest.mark.parametrize("name", ["no_such_module", "pytest", "json", "sys"])
def test_what_is_nowhere_or_was_installed_keeps_the_advice_of_the_container(name: str) -> None:
    assert message_of(name) == SAID.format(name=name, package=name)


@pytest.mark.parametrize(
    ("name", "said"), [("own_note", "add_local_python_source('own_note')"), ("strange", "pip_install")]
)
def test_the_same_goes_for_an_import_inside_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "own_note.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    raised = ModuleNotFoundError(f"No module named {name!r}", name=name)
    raised.add_note(f"The image has no package {name!r}: add it with image.pip_install({name!r}), or …")

    error = to_exception(encode_exception(raised))

    assert isinstance(error, ModuleNotFoundError)
    assert said in error.__notes__[0]
    assert len(error.__notes__) == 1
