"""Images whose steps have volumes: caches that fill, weights that are fetched, and what goes wrong."""

import os
import sys

import squall

app = squall.App("building-with-volumes")
cache = squall.Volume.from_name("cache", create_if_missing=True)
kept = squall.Volume.from_name("kept", create_if_missing=True)
slim = squall.Image.debian_slim()
MAKE = "printf 'plan%s' ted-in-the-volume > /deep/cache/made"
COUNT = "echo x >> /cache/count; wc -l < /cache/count > /srv/count"


def fetch(name: str) -> None:
    with open(f"/weights/{name}", "w") as file:
        file.write("fetched by a step")
    kept.commit()
    try:
        kept.reload()
    except squall.exception.ConflictError as error:
        reload = str(error)
    try:
        with open("/read-only/new", "w"):
            write = "written"
    except OSError as error:
        write = str(error)
    with open("/srv/said", "w") as file:
        file.write(f"{reload}; {write}")


made = slim.run_commands(MAKE, volumes={"/deep/cache": cache})
counted = slim.run_commands(COUNT, volumes={"/cache": cache}, force_build=os.environ.get("FORCED") == "1")
fetched = slim.run_function(
    fetch,
    args=("model",),
    volumes={"/weights": kept, "/read-only": cache.with_mount_options(read_only=True)},
)
# Within one image: the next step sees what the one before has written.
handed_on = slim.run_commands("echo one > /kept/handed", volumes={"/kept": kept}).run_commands(
    "cat /kept/handed > /srv/handed", volumes={"/kept": kept}
)


@app.function(image=made)
def look() -> tuple[bool, bool]:
    return os.path.exists("/srv/count"), os.path.exists("/deep")


@app.function(image=counted)
def count() -> str:
    with open("/srv/count") as file:
        return file.read().strip()


@app.function(image=fetched, volumes={"/weights": kept})
def use() -> tuple[str, str, bool]:
    with open("/weights/model") as file, open("/srv/said") as said:
        return file.read(), said.read(), os.path.exists("/read-only")


@app.function(image=handed_on)
def handed() -> str:
    with open("/srv/handed") as file:
        return file.read().strip()


@app.local_entrypoint()
def main(name: str) -> None:
    print("found", getattr(sys.modules[__name__], name).remote())
