"""What does not apply where one way for containers to start is forced on the tests (`make test-paths`)."""

from __future__ import annotations

import os

import pytest

_PATH = os.environ.get("SQUALL_START_PATH")
_IS_RESTORED = _PATH == "restore"

OF_THE_MACHINES_KERNEL = pytest.mark.skipif(
    _IS_RESTORED, reason="is about the machine's kernel: containers under gVisor have one of their own"
)
OF_QUICK_STARTS = pytest.mark.skipif(
    _IS_RESTORED, reason="counts on starts that take less time than to make, save and restore a template"
)
OF_TEMPLATES = pytest.mark.skipif(_PATH == "plain", reason="is about what is not there with templates switched off")
