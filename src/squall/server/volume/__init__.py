"""Volumes, as far as no disk and no clock is needed: trees of versions, changes to them, which versions are kept."""
