"""Where programs look for `FunctionCall`."""

from __future__ import annotations

from squall.sdk.function_call import FunctionCall as FunctionCall

__all__ = ["FunctionCall"]
