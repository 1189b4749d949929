"""Containers under gVisor: the program's system calls are answered by a kernel of its own, in a process of the machine.

runsc, gVisor's program, runs in the namespaces of a container as any other program would, but before them is no user
namespace: it makes one for its two helpers, the *sandbox* (that kernel) and the *gofer* (which opens files for it). All
of them see a root directory in memory that has runsc, the container's root file system and what is bound into it, and
nothing else of the machine. So there is nothing of runsc's to clean up: processes end with the first one, mounts and
runsc's own records are in that memory. See docs/decisions/0060.
"""
