"""Squall: serverless Python on your own machines."""
