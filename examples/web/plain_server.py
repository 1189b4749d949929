"""Any program that listens at a port, in any language; here, one of Python's own.

squall serve examples/web/plain_server.py
"""

import subprocess
import sys

import squall

app = squall.App("web-plain")


@app.function()
@squall.concurrent(max_inputs=100)
@squall.web_server(8000, startup_timeout=20)
def listing():
    subprocess.Popen([sys.executable, "-m", "http.server", "8000", "--directory", "/usr/share"])
