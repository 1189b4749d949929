"""Layers in an object store, and containers that start before all of a layer is here.

A packed layer is cut into blocks named by their hash (`manifest.py`); `store.py` puts and gets them, and `put.py` puts
images with their layers. `partial.py` is a layer of which some parts are here: `whole.py` fetches the rest before a
container starts, `daemon.py` serves it meanwhile through FUSE, and `lazy.py` is the agent's end of that daemon.
`stored.py` is what the agent asks for an image that it lacks. See docs/decisions/0031.
"""
