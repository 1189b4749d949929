"""A token that only the containers see that name it.

squall secret create example-service SERVICE_TOKEN=-      # typed without being shown, or from a pipe
squall run examples/storage/api_keys.py

Change it while the app runs by the same command with --force: containers that run keep the old one, new ones get the
new one.
"""

import hashlib
import os
from typing import Any

import squall

service = squall.Secret.from_name("example-service", required_keys=["SERVICE_TOKEN"])
settings = squall.Secret.from_dict({"SERVICE_URL": "https://service.example", "SERVICE_USER": "app"})

app = squall.App("api-keys", secrets=[settings])


@app.function(secrets=[service], env={"SERVICE_USER": "ada"})
def ask() -> dict[str, Any]:
    # Of its own secrets a function wins over its app, and env= over both.
    user, url = os.environ["SERVICE_USER"], os.environ["SERVICE_URL"]
    # What is returned is kept for a while, so no password is in it.
    mark = hashlib.sha256(os.environ["SERVICE_TOKEN"].encode()).hexdigest()[:8]
    return {"as": user, "of": url, "with a token": mark}


@app.function()
def look() -> bool:
    return "SERVICE_TOKEN" in os.environ


@app.local_entrypoint()
def main() -> None:
    print("asked", ask.remote())
    print("another function has it:", look.remote())
    print("last used:", service.info(refresh=True).last_used is not None)
