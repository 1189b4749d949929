"""Asking for the result of a call that is not known any more, and of one that never was."""

from __future__ import annotations

import time

import pytest

from squall import FunctionCall
from squall.exception import NotFoundError, OutputExpiredError
from squall.protocol.ids import new_id
from tests.e2e import flows
from tests.e2e.installation import Installation
from tests.server.doubles import made_at

DAY_S = 24 * 3600.0


def test_result_of_long_ago_has_expired_and_one_of_today_never_was(session_installation: Installation) -> None:
    with flows.running(session_installation, "calls"):
        with pytest.raises(OutputExpiredError, match="8 days ago, and outputs are kept for 7 days"):
            FunctionCall.from_id(made_at(time.time() - 8 * DAY_S)).get(timeout=5)
        with pytest.raises(NotFoundError, match="never was"):
            FunctionCall.from_id(new_id("fc")).get(timeout=5)
