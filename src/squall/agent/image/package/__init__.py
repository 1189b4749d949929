"""The Python packages that builds share, and the room they take."""
