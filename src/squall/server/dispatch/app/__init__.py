"""Apps, their versions, variants and schedules, and the environments they are in."""
