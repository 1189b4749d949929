"""Images of a node: bases, layers, and the builder that makes one from the other.

An image is a chain of steps (`squall.protocol.image`); a step that writes files makes a layer, addressed by what it was
built from. `bases.py` gets the first layer, from a registry (`registry.py`, `oci.py`, `unpack.py`) or out of Debian's
packages (`debian.py`); `layer_maker.py` makes the others, each in a container of the layers below; `layers.py` keeps
them, and `builder.py` goes through the steps for everyone who waits for the image. `machine.py` reads what builds
inherit from this machine and `inherit.py` hands it to a build container, so that none of it gets into a layer.

`bootstrap.py`, and with it all that makes a base, needs nothing but the standard library: set-up makes the
base while the Python environment is still being installed.
"""
