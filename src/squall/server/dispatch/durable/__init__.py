"""Durable calls: on disk before they are acknowledged."""
