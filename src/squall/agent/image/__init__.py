"""Images of a node: bases, layers, and the builder that makes one from the other.

An image is a chain of steps (`squall.protocol.image`); a step that writes files makes a layer, addressed by what it was
built from. `debian.py` makes the first layer out of Debian packages, `builder.py` the others, each in a container of
the layers below; `layers.py` keeps them. `machine.py` reads what builds inherit from this machine and `inherit.py`
hands it to a build container, so that none of it gets into a layer.

`bootstrap.py`, and with it `debian`, `layers` and `machine`, needs nothing but the standard library: set-up makes the
base while the Python environment is still being installed.
"""
