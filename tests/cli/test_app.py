"""`squall app`, as far as it needs no server."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from squall.cli import main


@pytest.mark.parametrize("count", ["-3", "0", "some"])
def test_limit_that_is_no_count_is_wrong_usage(count: str) -> None:
    ended = CliRunner().invoke(main.squall, ["app", "list", "--limit", count])

    assert ended.exit_code == 2, ended.output
    assert count in ended.output
