"""Templates for the suites that start them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from squall.protocol.guest import TEMPLATE_FUNCTION
from tests.guest.started_template import ENVIRONMENT, Start, StartedTemplate


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    """Starts a template; by this Python and of a function, unless something else is said."""
    started = []

    def begin(
        code: str,
        *,
        python: str = sys.executable,
        stage: str = TEMPLATE_FUNCTION,
        env: Mapping[str, str] = ENVIRONMENT,
        **more: str,
    ) -> StartedTemplate:
        started.append(StartedTemplate(data_dir, python, stage, code, more, env))
        return started[-1]

    yield begin
    for one in started:
        one.close()
