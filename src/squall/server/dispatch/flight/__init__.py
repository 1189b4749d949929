"""The flight recorder: what became of calls, containers and functions."""
