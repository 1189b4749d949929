"""Containers and the nodes they are on: how many, where, and how they begin and end."""
