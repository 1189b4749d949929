"""Any program that listens at a port, in any language; here, one of Python's own.

squall serve examples/web/plain_server.py
curl http://web-plain-listing-dev.localhost:7855/
"""

import subprocess
import sys

import squall

app = squall.App("web-plain")


@app.function()
@squall.concurrent(max_inputs=100)
@squall.web_server(8000, startup_timeout=20)
def listing():
    # It starts the program and returns. Requests come as soon as something listens.
    subprocess.Popen([sys.executable, "-m", "http.server", "8000", "--directory", "/usr/share"])
