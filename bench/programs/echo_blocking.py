"""Two processes, blocking sockets, 100 bytes there and back: the least two Python processes need."""

from __future__ import annotations

import json
import os
import socket
import sys
import time

BODY = b"x" * 100


def main() -> None:
    """Fork the other side, then measure one round trip after the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork() == 0:
        ours.close()
        while data := theirs.recv(4096):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    times_us = []
    for _ in range(int(sys.argv[1])):
        started = time.perf_counter()
        ours.sendall(BODY)
        ours.recv(4096)
        times_us.append((time.perf_counter() - started) * 1e6)
    ours.close()
    os.wait()
    times_us.sort()
    print(json.dumps({"p50_us": times_us[len(times_us) // 2], "p99_us": times_us[len(times_us) * 99 // 100]}))


if __name__ == "__main__":
    main()
