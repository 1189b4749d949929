"""Classes that read a volume in a hook with `snap=True`, or write to it."""

from __future__ import annotations

import mmap
import os
import time

import squall

app = squall.App("weights")
kept = squall.Volume.from_name("kept", create_if_missing=True)


def read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return "missing"


@app.cls(volumes={"/kept": kept}, enable_memory_snapshot=True, single_use_containers=True)
class Model:
    @squall.enter(snap=True)
    def load(self) -> None:
        self.weights = read("/kept/weights")
        if not os.path.exists("/kept/downloaded"):
            with open("/kept/downloaded", "w") as file:
                file.write("by the hook")

    @squall.method()
    def predict(self, name: str = "") -> dict[str, str]:
        if name:
            with open(f"/kept/{name}", "w") as file:
                file.write("of a call")
            kept.commit()
        seen = {"weights": self.weights, "now": read("/kept/weights"), "downloaded": read("/kept/downloaded")}
        return seen | {"container": os.environ["SQUALL_CONTAINER_ID"], "files": " ".join(sorted(os.listdir("/kept")))}

    @squall.method()
    def linger(self, name: str) -> None:
        with open(f"/kept/{name}", "w") as file:
            file.write("of a call that does not end")
        print("written", flush=True)
        time.sleep(600)


@app.cls(volumes={"/kept": kept.with_mount_options(read_only=True)}, enable_memory_snapshot=True,
         single_use_containers=True)  # fmt: skip
class Mapped:
    @squall.enter(snap=True)
    def load(self) -> None:
        kept.reload()
        os.chdir("/kept")
        self.file = open("weights", "rb")  # noqa: SIM115
        self.file.read(2)
        with open("/kept/weights", "rb") as opened:
            self.mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    @squall.method()
    def look(self) -> dict[str, str]:
        try:
            open("/kept/new", "w").close()
            refused = ""
        except OSError as error:
            refused = str(error.strerror)
        return {
            "file": self.file.read().decode(), "mapped": self.mapped[:].decode(), "refused": refused,
            "directory": os.getcwd(), "container": os.environ["SQUALL_CONTAINER_ID"],
        }  # fmt: skip


@app.function(volumes={"/kept": kept}, single_use_containers=True)
def count() -> dict[str, str]:
    return {"files": str(len(os.listdir("/kept"))), "container": os.environ["SQUALL_CONTAINER_ID"]}


@app.cls(volumes={"/kept": kept}, enable_memory_snapshot=True)
class Committing:
    @squall.enter(snap=True)
    def load(self) -> None:
        with open("/kept/of-a-hook", "w") as file:
            file.write("committed")
        kept.commit()
        kept.reload()

    @squall.method()
    def said(self) -> str:
        return read("/kept/of-a-hook")
