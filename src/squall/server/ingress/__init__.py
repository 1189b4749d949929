"""Requests for web functions, as they come in at the server's port."""
