"""Networks for containers: slots made ahead of time, each a namespace with one address behind the machine.

A container reaches the outside through the machine's address, the machine's resolver and proxies at addresses of
their own, and nothing else of the machine or of other containers. It has no IPv6 beyond its loopback. See
docs/decisions/0005-network-slots.md.
"""
