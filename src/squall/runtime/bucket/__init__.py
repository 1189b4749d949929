"""Buckets of containers: file systems that a program beside each container serves.

    spawner ─▶ server process: makes the mount ─▶ hands it up ─▶ becomes s3fs, which may do nothing else
            ─▶ waits until it answers          ─▶ starts the container, which attaches the mount

The mount is attached in the container alone, and goes with it. What the program may reach is what the container may: it
is in its network, in its user namespace with ids of nobody and no capability, under its filter of system calls. It is
in a cgroup of its own, as what is killed or frozen with the container waits for it. See docs/decisions/0077.
"""
