"""Images by name and by id."""

from __future__ import annotations

import pytest

from tests.e2e import flows
from tests.e2e.installation import PROGRAMS, Installation


@pytest.mark.timeout(240)
def test_published_image_is_used_by_its_name_and_by_its_id(session_installation: Installation) -> None:
    ended = flows.script(session_installation, PROGRAMS / "naming.py", timeout_s=200)

    assert ended.code == 0, ended
    missing, *rest = ended.out.splitlines()
    assert missing.startswith("missing: ")
    assert "naming-test:stable" in missing
    assert rest == [
        "first FIRST",
        "second SECOND",
        "same: True",
        "inside: second",
        "by id: first",
        "none: NotFoundError",
    ]
