"""Functions with buckets, for `test_buckets.py`: keys by a secret with a name, and by one of this program."""

import os
import time
from pathlib import Path

import squall

app = squall.App("bucket-user")

URL = "http://s3.us-east-1.amazonaws.com"
NAMED = squall.Secret.from_name("e2e-bucket")
LOCAL = squall.Secret.from_dict(
    {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": os.environ.get("PLANTED_LOCAL", "")}
)
DATA = Path("/data")


def mount(name: str = "the-bucket", **fields: object) -> squall.CloudBucketMount:
    return squall.CloudBucketMount(name, URL, force_path_style=True, **{"secret": NAMED, **fields})  # type: ignore[arg-type]


def seen() -> dict[str, str]:
    """What code in a container can see of keys."""
    names = ["environ", "cmdline"]
    paths = [path / name for path in Path("/proc").glob("[0-9]*") for name in names]
    texts = [path.read_bytes().decode(errors="replace") for path in paths if path.exists()]
    return {"environ": str(dict(os.environ)), "proc": "".join(texts)}


@app.function(volumes={"/data": mount(key_prefix="in/")})
def write(name: str, text: str) -> dict[str, str]:
    (DATA / name).write_text(text)
    return seen()


@app.function(volumes={"/data": mount(secret=LOCAL, read_only=True)})
def read(name: str) -> str:
    try:
        (DATA / "new").write_text("x")
    except OSError as error:
        return f"{(DATA / name).read_text()} {error.strerror}"
    return "it could be written"


@app.function(volumes={"/data": mount(key_prefix="in/")})
def write_slowly(duration_s: float = 5.0) -> None:
    path = DATA / os.environ["SQUALL_CONTAINER_ID"]
    path.write_text("begun")
    print("begun", flush=True)
    time.sleep(duration_s)
    with path.open("a") as file:
        file.write(", ended")


@app.function(volumes={"/data": mount("nowhere")}, retries=0)
def misses() -> None:
    """Is never begun."""
