"""Containers out of kernel parts: namespaces, cgroups, overlay, seccomp.

Takes a `ContainerSpec`, knows nothing of functions, calls or images, and imports nothing of ours. A spec becomes a
plan, a list of operations that can be printed and tested; one loop carries it out in a small single-threaded spawner
process that outlives the agent.

Invariants:
  * no container runs on the machine's own ids
  * every kernel object is named after its container and recorded before it is made
  * nothing is deleted below a path while something is mounted there
"""
