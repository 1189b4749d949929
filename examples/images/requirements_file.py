"""Packages of a requirements file, with the files that it includes. It is read when the image is used."""

from pathlib import Path

import squall

HERE = Path(__file__).parent

app = squall.App("requirements-file")

image = squall.Image.debian_slim().pip_install_from_requirements(str(HERE / "requirements" / "all.txt"))


@app.function(image=image)
def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("idna", "six")}


@app.local_entrypoint()
def main() -> None:
    found = versions.remote()
    print("six", found["six"], "as limits.txt has it, idna", found["idna"].partition(".")[0])
