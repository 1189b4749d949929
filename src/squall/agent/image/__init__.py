"""Images of a node: bases, layers, and the builder that makes one from the other.

An image is a chain of steps (`squall.protocol.image`); a step that writes files makes a layer, addressed by what it was
built from. `builder.py` goes through the steps for everyone who waits for the image, and `layer_maker.py` makes a
layer, most of them in a container of the layers below. `inherit.py` hands what builds inherit from this machine to such
a container, so that none of it gets into a layer. Below are the parts it has:

    bases/      the first layer of `debian_slim`: from a registry, or out of Debian's packages
    layer/      the layers of this node, and looks into them
    machine/    what this machine's settings say, and its tools
    oci/        images of registries
    package/    the Python packages that builds share
"""
