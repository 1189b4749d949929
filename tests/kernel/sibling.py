"""The container beside which attacks are run, as a piece of Python: it keeps something to itself, and says when."""

from __future__ import annotations

from tests.kernel.attacks import ATTACKS, SIBLING_KEY, SIBLING_NAME, SIBLING_PORT

SECRET = "what-a-sibling-keeps-to-itself"
ON_A_SIBLING = (*(name for name in ATTACKS if name.endswith("_of_sibling")), "signal_sibling")
# What it keeps is in all places where somebody could look for it.
LIVING = f"""
import ctypes, os, select, socket, subprocess
from pathlib import Path
secret = os.environ["SECRET"]
for folder in ("/tmp", "/dev/shm", "/root"):
    Path(folder, "secret").write_text(secret)
held = open("/tmp/secret")
# The variables that a fork shows are its template's, and those of a restored one, too.
shows_variables = subprocess.Popen(["sleep", "1000"])
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.memmove(ctypes.c_void_p(libc.shmat(libc.shmget({SIBLING_KEY}, 4096, 0o1666), None, 0)), secret.encode(), 40)
listeners = [socket.create_server(("127.0.0.1", {SIBLING_PORT})), socket.socket(socket.AF_UNIX)]
listeners[1].bind({SIBLING_NAME!r})
listeners[1].listen()
print("up", flush=True)
while True:
    for listener in select.select(listeners, [], [])[0]:
        listener.accept()[0].sendall(secret.encode())
"""
