"""The locked packages of a Poetry project, with an optional group."""

from pathlib import Path

import squall

HERE = Path(__file__).parent

app = squall.App("poetry-project")

image = squall.Image.debian_slim().poetry_install_from_file(
    str(HERE / "poetry_project" / "pyproject.toml"), with_=["old"]
)


@app.function(image=image)
def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("idna", "six")}


@app.local_entrypoint()
def main() -> None:
    print("the project's packages are", *sorted(versions.remote()))
