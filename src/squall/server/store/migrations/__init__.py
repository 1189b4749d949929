"""Numbered changes of the store's tables, applied in order when a server starts; none is edited after its release."""
