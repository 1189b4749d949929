"""Composes the programs out of server and agent, and reads configuration; nothing else reads the environment."""
