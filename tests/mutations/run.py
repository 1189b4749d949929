"""Prove the tests of faults: take each behaviour out of a copy of the program and see its test fail.

    scripts/mutants [NAME...]     (make mutants)

First the tests run on an unchanged copy and must pass. Then each mutation: a fresh copy, changed, and its tests in a
sandbox. A mutation is killed when every test named fails at the statement named, by an assertion. It survives when one
passes, and is unclear when one fails in any other way: both fail the run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.runtime.removal import remove_tree
from tests.mutations import sandbox
from tests.mutations.mutation import Mutation, apply, check, copy_tracked
from tests.mutations.table import MUTATIONS
from tests.tree import ROOT

LAYERS = "squall-test.layers"
TEST_S = 200.0
START_S = 60.0
REPORT = "report.jsonl"
PASSED, KILLED, SURVIVED, UNCLEAR = "passed", "killed", "SURVIVED", "UNCLEAR"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one test of one mutation."""

    word: str
    why: str = ""


def main() -> int:
    """Run what the command line asks for; 0 when every mutation was killed."""
    parser = argparse.ArgumentParser(prog="scripts/mutants", description="Prove that the tests of faults can fail.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations to run (all)")
    parser.add_argument("--list", action="store_true", help="show what there is")
    parser.add_argument("--skip-unchanged", action="store_true", help="do not run the tests on an unchanged copy first")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="keep what pytest said there")
    options = parser.parse_args()
    chosen = [one for one in MUTATIONS if not options.names or one.name in options.names]
    unknown = set(options.names) - {one.name for one in chosen}
    if unknown:
        parser.error(f"no mutation {', '.join(sorted(unknown))}; --list shows what there is")
    if options.list:
        for one in chosen:
            print(f"{one.name:28} {one.fault}: {one.removed}")
        return 0
    if problem := sandbox.missing():
        print(f"error: cannot run mutations: {problem}", file=sys.stderr)
        return 1
    # As Ctrl-C does: what runs is ended, and what was made removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The name is one that the search for leaks leaves alone.
    top = Path(tempfile.mkdtemp(prefix="squall-test.mutants.", dir="/tmp"))
    try:
        for mutation in chosen:
            check(mutation, ROOT)
        return _run_all(chosen, top, options.keep_logs, is_checked_first=not options.skip_unchanged)
    except ValueError as error:
        print(f"error: {error}; correct tests/mutations", file=sys.stderr)
        return 1
    finally:
        # Refuses where something is mounted: nothing is, unless a sandbox failed to end.
        remove_tree(str(top))


def _run_all(chosen: Sequence[Mutation], top: Path, logs_dir: Path | None, *, is_checked_first: bool) -> int:
    if is_checked_first and not _is_well(chosen, top, logs_dir):
        return 1
    print(f"\n{'fault':46} {'mutation':28} {'result':9} {'seconds':>7}  test", flush=True)
    bad = []
    for mutation in chosen:
        started = time.monotonic()
        seen, log = _run_tests(mutation.fails, top, mutation)
        _keep(log, logs_dir, mutation.name)
        took_s = time.monotonic() - started
        for test, statement in mutation.fails.items():
            verdict = judge(seen, test, statement)
            print(f"{mutation.fault:46} {mutation.name:28} {verdict.word:9} {took_s:7.1f}  {test}", flush=True)
            if verdict.word != KILLED:
                bad.append(mutation.name)
                print(f"    {mutation.removed}; {verdict.why}", flush=True)
                if not seen:
                    print(log[-3_000:], flush=True)
    tests = sum(len(one.fails) for one in chosen)
    print(f"\n{len(chosen)} mutations, {tests} tests that must fail, {len(bad)} did not as they should", flush=True)
    if bad:
        print(f"again: scripts/mutants {' '.join(dict.fromkeys(bad))}")
    return 1 if bad else 0


def _is_well(chosen: Sequence[Mutation], top: Path, logs_dir: Path | None) -> bool:
    tests = list(dict.fromkeys(test for one in chosen for test in one.fails))
    print(f"unchanged: {len(tests)} tests", flush=True)
    started = time.monotonic()
    seen, log = _run_tests(tests, top, None)
    _keep(log, logs_dir, "unchanged")
    outcomes = {test: _outcome(seen, test) for test in tests}
    bad = {test: word for test, word in outcomes.items() if word != PASSED}
    for test, word in bad.items():
        print(f"  {word}: {test}: {_in_words(_failures(seen, test))}")
    if bad and not seen:
        print(log[-3_000:])
    print(f"unchanged: {len(tests) - len(bad)} passed in {time.monotonic() - started:.0f} s", flush=True)
    return not bad


def _keep(log: str, logs_dir: Path | None, name: str) -> None:
    if logs_dir is not None:
        logs_dir.mkdir(parents=True, exist_ok=True)
        (logs_dir / f"{name}.log").write_text(log)


def _run_tests(tests: Iterable[str], top: Path, mutation: Mutation | None) -> tuple[list[dict[str, Any]], str]:
    """Run tests on a copy, changed or not; returns what each phase of each test came to, and what pytest said."""
    work = Path(tempfile.mkdtemp(dir=top))
    try:
        copy = work / "tmp" / "source"
        copy_tracked(ROOT, copy)
        if mutation is not None:
            apply(mutation, copy)
        wanted = list(tests)
        if any(test.startswith("tests/e2e/") for test in wanted):
            _share_layers(top, work / "tmp")
        command = [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.mutations.report"),
            *("--override-ini=addopts=--import-mode=importlib", f"--timeout={TEST_S:g}", "-q", "--tb=short"),
            *wanted,
        ]
        timeout_s = START_S + TEST_S * min(len(wanted), 6)
        sandbox.run(command, work / "tmp", _environ(), timeout_s, work / "log")
        report = work / "tmp" / REPORT
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        return [json.loads(line) for line in lines], (work / "log").read_text(errors="replace")
    finally:
        remove_tree(str(work))


def _share_layers(top: Path, tmp_dir: Path) -> None:
    """Give it the base layers that the end-to-end tests keep: inside there is no mirror to make them from."""
    kept, copy = Path(tempfile.gettempdir()) / LAYERS, top / LAYERS
    if not kept.is_dir():
        return
    if not copy.exists():
        subprocess.run(["cp", "-a", "--reflink=auto", str(kept), str(copy)], check=True, timeout=120)
    # Links to our own copy: what a mutant does to the files is no harm to the kept ones.
    subprocess.run(["cp", "-al", str(copy), str(tmp_dir / LAYERS)], check=True, timeout=120)


def _environ() -> Mapping[str, str]:
    # Only what programs need: settings of this machine's owner would lead outside.
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "SQUALL_TEST_CACHE") if name in os.environ}
    home = "/tmp/home"
    return {
        **kept,
        "HOME": home,
        "PYTHONPATH": "/tmp/source/src:/tmp/source",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SQUALL_MUTATIONS_REPORT": f"/tmp/{REPORT}",
    }


def _phases(seen: Sequence[dict[str, Any]], test: str) -> list[dict[str, Any]]:
    return [one for one in seen if one["test"] == test]


def _outcome(seen: Sequence[dict[str, Any]], test: str) -> str:
    phases = _phases(seen, test)
    if not phases:
        return "not run"
    for word in ("failed", "skipped"):
        if any(one["outcome"] == word for one in phases):
            return word
    return PASSED


def _failures(seen: Sequence[dict[str, Any]], test: str) -> list[dict[str, Any]]:
    return [failure for one in _phases(seen, test) for failure in one["failures"]]


def _in_words(failures: Sequence[dict[str, Any]]) -> str:
    """The first failure: where and what."""
    if not failures:
        return "nothing was told"
    first = failures[0]
    where = first["statements"][-1] if first["statements"] else "no statement of a test"
    return f"at {where!r}: {first['error']}: {first['message'][:1_000]}"


def judge(seen: Sequence[dict[str, Any]], test: str, statement: str) -> Verdict:
    """Whether a test failed as it must: at this statement, by an assertion."""
    outcome = _outcome(seen, test)
    if outcome == PASSED:
        return Verdict(SURVIVED, "and the test passes")
    if outcome != "failed":
        return Verdict(UNCLEAR, f"the test was {outcome}")
    failures = _failures(seen, test)
    for one in failures:
        if _is_assertion(one) and any(statement in found for found in one["statements"]):
            return Verdict(KILLED)
    return Verdict(UNCLEAR, f"the test fails, but {_in_words(failures)}")


def _is_assertion(failure: dict[str, Any]) -> bool:
    """Whether a test says that something is not so; what ended in place of that proves nothing."""
    # Of what pytest itself fails a test for, an error or warning that did not come is one; a time that is up is none.
    is_missed = failure["error"] == "Failed" and str(failure["message"]).startswith(("DID NOT RAISE", "DID NOT WARN"))
    return is_missed or bool(failure["error"] == "AssertionError")


if __name__ == "__main__":
    sys.exit(main())
