"""Packages of the Python package index, by name. Two ways to write it; both use uv and share what was downloaded."""

import squall

app = squall.App("pip-packages")

image = squall.Image.debian_slim().pip_install("six==1.16.0", "idna").uv_pip_install("attrs>=23")

# Only the image has these packages. Outside it this block is allowed to fail.
with image.imports():
    import attrs
    import idna
    import six


@app.function(image=image)
def look() -> tuple[str, str, bool]:
    return six.__version__, idna.encode("bücher.example").decode(), hasattr(attrs, "define")


@app.local_entrypoint()
def main() -> None:
    print("packages found", *look.remote())
