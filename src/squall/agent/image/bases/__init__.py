"""The first layer of `debian_slim`: from a registry, or out of Debian's packages.

`ensure.py` finds it or has it made. `bootstrap.py`, and with it all that makes a base, needs nothing but the standard
library: set-up makes the base while the Python environment is still being installed.
"""
