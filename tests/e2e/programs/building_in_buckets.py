"""Images whose steps have buckets: keys by a secret with a name, and by one of this program."""

import os

import squall

app = squall.App("building-in-buckets")
LOCAL = squall.Secret.from_dict(
    {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": os.environ.get("PLANTED_LOCAL", "")}
)


def mount(secret: squall.Secret, *, read_only: bool = False) -> squall.CloudBucketMount:
    return squall.CloudBucketMount(
        "the-bucket", "http://s3.us-east-1.amazonaws.com", "models/", secret, read_only=read_only
    )


def fetch() -> None:
    """What the image has of the bucket is a copy; what it says of keys, everybody may read."""
    with open("/models/weights") as file, open("/srv/fetched", "w") as copy:
        copy.write(file.read())
    with open("/models/by-a-step", "w") as file:
        file.write("made by a step")
    keys = [name for name in os.environ if name.startswith("AWS_")]
    with open("/srv/keys", "w") as file:
        file.write(" ".join(keys))


image = (
    squall.Image.debian_slim()
    .run_function(fetch, volumes={"/models": mount(squall.Secret.from_name("e2e-bucket"))})
    .run_commands(
        "cat /models/by-a-step > /srv/seen", "! touch /models/x", volumes={"/models": mount(LOCAL, read_only=True)}
    )
)


@app.function(image=image)
def look() -> list[str]:
    texts = []
    for name in ("fetched", "seen", "keys"):
        with open(f"/srv/{name}") as file:
            texts.append(file.read())
    return [*texts, str(os.path.exists("/models"))]


@app.local_entrypoint()
def main() -> None:
    print("found", look.remote())
