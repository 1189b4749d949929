"""A node: turns what the server wants to run into containers, images and mounts of this machine."""
