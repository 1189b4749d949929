"""A server: as many containers as its requests need, each request straight to one of them and without a time limit.

squall deploy examples/web/server_class.py
curl http://web-server-echo.localhost:7855/some/path
squall app logs web-server
"""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import squall

app = squall.App("web-server")
PORT = 8000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        said = f"{os.environ['SQUALL_CONTAINER_ID']} was asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


# Another container starts while there are more than 16 requests for each; none is given more than 32.
# Without `unauthenticated` its clients need a proxy token.
@app.server(port=PORT, target_concurrency=16, max_concurrency=32, unauthenticated=True)
class Echo:
    @squall.enter()
    def start(self):
        """Let something listen, as a thread here, or as a program of any language."""
        self.server = ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @squall.exit()
    def stop(self):
        """Runs when the last of its requests has been answered."""
        self.server.shutdown()
        print("nothing is left to do here")


@app.local_entrypoint()
def main():
    print(f"ask {Echo.get_url()}")
