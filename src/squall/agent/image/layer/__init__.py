"""The layers of this node: the store that keeps them, and looks into them as overlayfs would have them."""
