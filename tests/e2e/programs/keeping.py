"""Functions that read and write a volume."""

import os
import signal
import time

import squall

app = squall.App("keeping")
kept = squall.Volume.from_name("kept", create_if_missing=True)
only_read = kept.with_mount_options(read_only=True)


@app.function(volumes={"/kept": kept}, max_containers=1)
def write(name: str, text: str, commits: bool = True) -> list[str]:
    os.makedirs("/kept/dir", exist_ok=True)
    with open(f"/kept/dir/{name}", "w") as file:
        file.write(text)
    if commits:
        kept.commit()
    return sorted(os.listdir("/kept/dir"))


@app.function(volumes={"/kept": kept}, max_containers=1)
def read(name: str, reloads: bool = True) -> str:
    if reloads:
        kept.reload()
    try:
        with open(f"/kept/dir/{name}") as file:
            return file.read()
    except FileNotFoundError:
        return "missing"


@app.function(volumes={"/kept": only_read})
def try_to_write() -> str:
    try:
        with open("/kept/new", "w"):
            return "written"
    except OSError as error:
        return str(error)


@app.function(volumes={"/kept": kept})
def reload_with_open_file() -> tuple[str, str]:
    with open("/kept/dir/a") as file:
        try:
            kept.reload()
        except RuntimeError as error:
            refused = f"{type(error).__name__}: {error}"
        else:
            refused = "reloaded"
        return refused, file.read()


@app.function(volumes={"/kept": kept})
def sleep_after_writing(name: str, duration_s: float) -> None:
    with open(f"/kept/{name}", "w") as file:
        file.write("before the end")
    print("written", flush=True)
    time.sleep(duration_s)


@app.function(volumes={"/kept": kept})
def die_while_writing(name: str) -> None:
    with open(f"/kept/{name}", "w") as file:
        file.write("one, ")
        file.flush()
        kept.commit()
        file.write("two, ")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


@app.function(volumes={"/kept": kept.with_mount_options(sub_path="dir")})
def list_below() -> list[str]:
    return sorted(os.listdir("/kept"))


@app.function(volumes={"/kept": kept}, isolation="gvisor")
def apart(name: str, text: str) -> tuple[str, str]:
    with open(f"/kept/{name}", "w") as file:
        file.write(text)
    kept.reload()
    with open(f"/kept/{name}") as file:
        try:
            kept.reload()
        except RuntimeError as error:
            return type(error).__name__, file.read()
    return "reloaded", ""


@app.function()
def commit_unmounted() -> str:
    try:
        kept.commit()
    except squall.Error as error:
        return f"{type(error).__name__}: {error}"
    return "committed"


@app.local_entrypoint()
def main() -> None:
    print("first", write.remote("a", "one"), read.remote("a"))
    print("again", write.remote("b", "two"), read.remote("b"))
    print("not reloaded", write.remote("a", "changed"), read.remote("a", False))
    print("reloaded", read.remote("a"))
    print("read-only", try_to_write.remote())
    print("open", *reload_with_open_file.remote())
    print("below", list_below.remote())
    print("unmounted", commit_unmounted.remote())
    print("not committed", write.remote("c", "three", False), read.remote("c"))
    print("client", b"".join(kept.read_file("dir/a")).decode())
    kept.remove_file("dir/b")
    print("removed", read.remote("b"), write.remote("d", "four"))
