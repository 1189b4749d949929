"""Requests in a container: applications that answer them, and what listens at a port."""
