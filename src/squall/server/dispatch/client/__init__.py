"""Clients: who they are, what they may, and what waits for them."""
