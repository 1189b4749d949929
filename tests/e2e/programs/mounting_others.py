"""Functions and classes that are called with other volumes than those they were decorated with."""

import os

import squall

app = squall.App("mounting-others")
kept = squall.Volume.from_name("kept", create_if_missing=True)
other = squall.Volume.from_name("of-variants", create_if_missing=True)


def mounts() -> list[str]:
    return [path for path in ("/kept", "/other") if os.path.exists(path)]


@app.function(volumes={"/kept": kept})
def look() -> list[str]:
    return mounts()


@app.function(volumes={"/kept": kept})
def write() -> None:
    with open("/other/written", "w") as file:
        file.write("by a variant")


@app.cls(volumes={"/kept": kept})
class Keeper:
    @squall.method()
    def look(self) -> list[str]:
        return mounts()


@app.local_entrypoint()
def main() -> None:
    elsewhere = look.with_options(volumes={"/other": other})
    print("functions", look.remote(), elsewhere.remote(), elsewhere.with_options(timeout=60).remote())
    other_keeper = Keeper.with_options(volumes={"/other": other})  # type: ignore[attr-defined]  # decorated, it is a Cls
    print("classes", other_keeper().look.remote(), Keeper().look.remote())
    write.with_options(volumes={"/other": other}).remote()
    try:
        write.with_options(volumes={"/other": other.with_mount_options(read_only=True)}).remote()
    except OSError as error:
        print("read-only", error)
    try:
        look.with_options(volumes={"/other": squall.Volume.from_name("no-such")}).remote()
    except squall.exception.NotFoundError as error:
        print("missing", error)
