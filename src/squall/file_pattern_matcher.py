"""Where programs look for `FilePatternMatcher`."""

from __future__ import annotations

from squall.sdk.file_pattern_matcher import FilePatternMatcher as FilePatternMatcher

__all__ = ["FilePatternMatcher"]
