"""What builds take from this machine: its settings for packages and registries, and its tools."""
