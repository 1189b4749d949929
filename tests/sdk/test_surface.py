"""`Image` and `FilePatternMatcher` have the decided methods with the decided parameters, and `.aio` likewise.

The decisions are in `surface_image.json`. It is a part of the reference the project began with: names and parameters
that were read out of the wheel of Modal 1.6.4, so that `import squall as modal` finds them. It is changed when the
reference is, and never to make a test pass. What is still to come says so, and is named in `sdk/_later.py`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.sdk._facade import blocking, blocking_static

DECIDED: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "surface_image.json").read_text())
KINDS: dict[str, tuple[type, frozenset[str]]] = {
    "Image": (squall.Image, frozenset()),
    "FilePatternMatcher": (squall.FilePatternMatcher, frozenset()),
}
METHODS = [(kind, name) for kind, decided in DECIDED.items() for name in decided["methods"]]
SETTLED_HERE = {("Image", "from_id")}
"""Nothing is asked when one of these is called, so there is nothing to await."""
SUPERSEDED = {"from_aws_ecr", "from_gcp_artifact_registry"}
"""Hidden there; programs that have them run all the same."""


def parameters(method: Any) -> list[str]:
    """The names of a method's parameters as a user gives them: stars for those that take all the rest."""
    core = inspect.unwrap(method._core if isinstance(method, blocking | blocking_static) else method)
    stars = {inspect.Parameter.VAR_POSITIONAL.name: "*", inspect.Parameter.VAR_KEYWORD.name: "**"}
    known = inspect.signature(core).parameters.values()
    return [stars.get(one.kind.name, "") + one.name for one in known if one.name not in ("self", "cls")]


def method_of(kind: str, name: str) -> Any:
    """As it is written in the class; None when it is still to come."""
    return inspect.getattr_static(KINDS[kind][0], name, None)


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_each_decided_method_has_its_parameters_or_says_that_it_is_to_come(kind: str, name: str) -> None:
    owner, later = KINDS[kind]
    found = method_of(kind, name)

    if name in later:
        assert found is None, f"{kind}.{name} is here: take it out of sdk/_later.py"
        with pytest.raises(AttributeError, match=f"^{kind}.{name} is not in this version of Squall yet$"):
            getattr(owner, name)
        return
    assert found is not None, f"{kind}.{name} was decided; until it is there, name it in sdk/_later.py"
    assert parameters(getattr(found, "__func__", found)) == DECIDED[kind]["methods"][name]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_what_waits_for_a_server_has_aio(kind: str, name: str) -> None:
    found = method_of(kind, name)
    if found is None:
        pytest.skip(f"{kind}.{name} is not in this version of Squall yet")

    has_aio = isinstance(found, blocking | blocking_static)

    assert has_aio == (name in DECIDED[kind]["aio"] and (kind, name) not in SETTLED_HERE)


@pytest.mark.parametrize("kind", [kind for kind, decided in DECIDED.items() if "init" in decided])
def test_each_decided_class_is_made_of_its_parameters_and_has_its_properties(kind: str) -> None:
    owner, _ = KINDS[kind]
    found = {name for name, one in vars(owner).items() if isinstance(one, property)}

    assert parameters(vars(owner)["__init__"]) == DECIDED[kind]["init"]
    assert found == set(DECIDED[kind]["properties"])


@pytest.mark.parametrize("kind", DECIDED)
def test_no_method_is_there_that_was_not_decided(kind: str) -> None:
    owner, _ = KINDS[kind]
    here = {name for name in vars(owner) if not name.startswith("_") and callable(getattr(owner, name))}

    assert here - set(DECIDED[kind]["methods"]) <= {"raise_import_error"} | SUPERSEDED
