"""Equal secrets have equal marks, and a mark gives no value away."""

from __future__ import annotations

import subprocess
import sys

from squall.protocol.secret_mark import secret_mark

SECRETS = {"0": {"TOKEN": "s3cret", "USER": "bob"}, "1": {"TOKEN": "other"}}


def test_marks_tell_secrets_apart_by_names_and_values() -> None:
    others = ({"0": SECRETS["0"]}, {**SECRETS, "1": {"TOKEN": "another"}}, {"0": SECRETS["1"], "1": SECRETS["0"]})

    assert secret_mark(SECRETS) == secret_mark({"1": {"TOKEN": "other"}, "0": {"USER": "bob", "TOKEN": "s3cret"}})
    assert len({secret_mark(SECRETS), *map(secret_mark, others), secret_mark({})}) == 5
    assert secret_mark({}) == ""
    assert secret_mark({"0": {"TOKEN": "\udcff"}})


def test_mark_means_nothing_elsewhere() -> None:
    program = f"from squall.protocol.secret_mark import secret_mark; print(secret_mark({SECRETS}))"

    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    ).stdout

    assert len(said.strip()) == 32
    assert said.strip() != secret_mark(SECRETS)
