"""Packages of conda channels, by micromamba. Needs a registry that has its image, and a channel such as conda-forge."""

import squall

app = squall.App("micromamba")

image = squall.Image.micromamba("3.12").micromamba_install("zstd", "numpy", channels=["conda-forge"])


@app.function(image=image)
def look() -> tuple[str, str]:
    import shutil
    import sys

    import numpy

    return sys.prefix, f"{shutil.which('zstd')} {numpy.arange(4).sum()}"


@app.local_entrypoint()
def main() -> None:
    print("conda packages in", *look.remote())
