"""Templates on disk, by CRIU: what a template has loaded is there again after a reboot, without loading it.

Saved is one process, a copy that the template makes of itself for this. Its container is not: namespaces, mounts,
cgroups and network of the one it comes back to are made by a plan, as any template's. See docs/decisions/0065.
"""
