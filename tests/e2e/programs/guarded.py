"""A web function and a server that want a proxy token; both answer with the headers that they see."""

import http.server
import json
import threading
from typing import Any

import squall

app = squall.App("guarded")


@app.function()
@squall.wsgi_app(requires_proxy_auth=True)
def site() -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        headers = {name[5:].lower().replace("_", "-"): environ[name] for name in environ if name.startswith("HTTP_")}
        print("asked with", headers, flush=True)
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(headers).encode()]

    return application


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        print("asked with", said, flush=True)
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


@app.server(port=8134)
class Plain:
    @squall.enter()
    def start(self) -> None:
        listening = http.server.ThreadingHTTPServer(("0.0.0.0", 8134), Handler)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
