"""The table of mutations is true: what each replaces is there, the tests it names exist, and fail where it says."""

from __future__ import annotations

import ast

import pytest

from tests.mutations.mutation import Mutation
from tests.mutations.run import KILLED, PASSED, SURVIVED, UNCLEAR, judge
from tests.mutations.table import MUTATIONS
from tests.tree import ROOT, parse, read

pytestmark = pytest.mark.long

# What runs around the tests there may be what fails: nothing is left behind.
FIXTURES = (ROOT / "tests/e2e/conftest.py", ROOT / "tests/conftest.py")


def test_names_are_given_once() -> None:
    names = [one.name for one in MUTATIONS]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_text_to_replace_is_there_once(mutation: Mutation) -> None:
    for change in mutation.changes:
        assert read(ROOT / change.file).count(change.old) == 1, f"{change.file}: {change.old!r}"
        assert change.old != change.new


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_changed_file_is_still_python(mutation: Mutation) -> None:
    texts: dict[str, str] = {}
    for change in mutation.changes:
        texts[change.file] = texts.get(change.file, read(ROOT / change.file)).replace(change.old, change.new)

    for text in texts.values():
        ast.parse(text)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_tests_that_must_fail_exist_and_say_so_where_it_says(mutation: Mutation) -> None:
    assert mutation.fails
    for test, statement in mutation.fails.items():
        file, _, rest = test.partition("::")
        name = rest.partition("[")[0]
        path = ROOT / file
        found = [
            node
            for node in parse(path).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        texts = [ast.get_source_segment(read(path), node) or "" for node in found]
        assert len(texts) == 1, f"{file} has no test {name}"
        assert statement
        assert any(statement in text for text in (*texts, *map(read, FIXTURES))), f"{test}: {statement!r} is not in it"


def phase(outcome: str, *failures: tuple[str, ...], when: str = "call", message: str = "") -> dict[str, object]:
    """One line of the report; a failure is the type of the error, then the statements of tests on the way to it."""
    told = [{"error": error, "message": message, "statements": statements} for error, *statements in failures]
    return {"test": "t.py::test_x", "phase": when, "outcome": outcome, "failures": told}


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        ([phase("passed")], SURVIVED),
        ([], UNCLEAR),
        ([phase("skipped")], UNCLEAR),
        ([phase("failed", ("AssertionError", "assert x == 1, ended"))], KILLED),
        ([phase("failed", ("AssertionError", "assert helper() or x == 1", "assert found"))], KILLED),
        ([phase("failed", ("AssertionError", "assert y == 1"))], UNCLEAR),
        ([phase("failed", ("ValueError", "assert x == 1"))], UNCLEAR),
        ([phase("failed", ("Failed", "with raises(E): x == 1"), message="DID NOT RAISE <class 'E'>")], KILLED),
        ([phase("failed", ("Failed", "with raises(E): x == 1"), message="Timeout (>200.0s)")], UNCLEAR),
        ([phase("passed"), phase("failed", ("AssertionError", "assert x == 1"), when="teardown")], KILLED),
        ([phase("failed", ("ValueError", "y()"), ("AssertionError", "assert x == 1"), when="teardown")], KILLED),
    ],
)
def test_only_a_failure_of_the_right_statement_kills(seen: list[dict[str, object]], word: str) -> None:
    assert judge(seen, "t.py::test_x", "x == 1").word == word
    assert PASSED not in (SURVIVED, KILLED, UNCLEAR)
