"""Volumes on a node: versions made ready to be mounted, what containers write on them, and its way into commits."""
