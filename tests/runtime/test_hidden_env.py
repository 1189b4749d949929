"""What has the environment of a program is put into messages as a whole, and says nothing of that."""

from __future__ import annotations

import pytest

from squall.runtime import operations as op
from squall.runtime.spec import ContainerSpec, ExecSpec, IdRange

ENV = {"TOKEN": "planted-secret"}


@pytest.mark.parametrize(
    "told",
    [
        op.Execute(("sh",), ENV, "/", has_init=True),
        ExecSpec(("sh",), ENV),
        ContainerSpec("ct-1", (), "/nowhere", IdRange(100_000), ("sh",), ENV),
    ],
)
def test_no_message_has_what_is_in_the_environment(told: object) -> None:
    assert "sh" in repr(told)
    assert "planted-secret" not in repr(told)
