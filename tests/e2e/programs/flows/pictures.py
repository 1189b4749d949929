"""Images with every kind of step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import squall

HERE = Path(__file__).parent
# Read at run time on the caller's side only: in the container the files of this machine are not there.
TREE = os.environ.get("TREE", "/nowhere")

base = squall.Image.debian_slim()
built = (
    base.env({"GREETING": "hello"})
    .apt_install("tree")
    .pip_install("six")
    .workdir("/srv/made")
    .run_commands("echo $GREETING > greeting.txt", "pwd >> greeting.txt; id -u >> greeting.txt")
    .add_local_file(f"{TREE}/file.txt", "/srv/copied.txt", copy=True)
    .add_local_dir(f"{TREE}/folder", "/srv/copied", copy=True, ignore=["*.log"])
    .add_local_python_source("borrowed", copy=True)
    .run_commands("cat /srv/copied.txt /srv/copied/inner/a.txt > /srv/seen.txt")
    .add_local_file(f"{TREE}/file.txt", "/srv/attached/")
    .add_local_dir(f"{TREE}/folder", "/srv/attached/folder", ignore=["*.log"])
    .add_local_python_source("lent")
)

app = squall.App("pictures")


@app.function(image=built)
def look() -> dict[str, Any]:
    import borrowed  # type: ignore[import-not-found]  # the image has it
    import lent  # type: ignore[import-not-found]  # as above
    import six  # type: ignore[import-untyped]

    def files(top: str) -> list[str]:
        return sorted(str(path.relative_to(top)) for path in Path(top).rglob("*") if path.is_file())

    return {
        "tree": shutil.which("tree"),
        "tree runs": subprocess.run(["tree", "--version"], capture_output=True, check=True).returncode,
        "six": bool(six.__version__),
        "greeting": Path("greeting.txt").read_text().split(),
        "cwd": os.getcwd(),
        "copied": files("/srv/copied"),
        "attached": files("/srv/attached"),
        "seen": Path("/srv/seen.txt").read_text(),
        "borrowed": (borrowed.__file__, borrowed.VALUE),
        "lent": (lent.__file__, lent.VALUE),
        "greeting variable": os.environ["GREETING"],
    }


@app.function(image=base)
def version() -> list[int]:
    return list(sys.version_info[:2])
