"""The dependencies that a project's `pyproject.toml` names, with those of an extra, and not the project itself."""

from importlib.metadata import packages_distributions
from pathlib import Path

import squall

app = squall.App("pyproject")

HERE = Path(__file__).parent

image = squall.Image.debian_slim().pip_install_from_pyproject(str(HERE / "uv_project" / "pyproject.toml"), ["old"])


@app.function(image=image)
def look() -> list[str]:
    return sorted({"idna", "six", "greeter"} & packages_distributions().keys())


@app.local_entrypoint()
def main() -> None:
    print("installed are", *look.remote())
