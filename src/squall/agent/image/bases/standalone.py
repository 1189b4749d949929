"""Pythons that need nothing of an image but its C library: uv knows where they are, and checks what it fetches."""

from __future__ import annotations

import os
from pathlib import Path

from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import PATH, WITH_PARENT, Output, Watch, run_tool

PYTHON_DIR = "/opt/python"
"""Where it is in an image."""
MUSL_LOADERS = ("/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1")
"""What an image of the other C library has."""
_TIMEOUT_S = 600.0


def fetch_python(
    uv_path: str, python_version: str, directory: Path, settings: MachineSettings, output: Output, *, is_musl: bool
) -> None:
    """Fetch a Python into `PYTHON_DIR` below a directory that does not exist yet. Blocks.

    Raises:
        ToolFailed: it cannot be had.
    """
    parent = directory / os.path.dirname(PYTHON_DIR).lstrip("/")
    parent.mkdir(parents=True, mode=0o755)
    wanted = f"cpython-{python_version}-linux-{os.uname().machine}-{'musl' if is_musl else 'gnu'}"
    environ = {
        "PATH": PATH,
        "HOME": str(directory),
        "UV_PYTHON_CACHE_DIR": str(directory / ".cache"),
        **({"SSL_CERT_FILE": settings.ca_bundle} if settings.ca_bundle else {}),
        **({"UV_PYTHON_INSTALL_MIRROR": settings.python_mirror} if settings.python_mirror else {}),
        **settings.proxies,
    }
    command = (uv_path, "--no-config", "python", "install", wanted, "--install-dir", str(parent), "--no-bin")
    run_tool((*WITH_PARENT, *command), environ, output, Watch(_TIMEOUT_S))
    made = next(path for path in parent.iterdir() if path.name.startswith("cpython-") and not path.is_symlink())
    for path in list(parent.iterdir()):
        if path.is_symlink() or path.is_file():
            path.unlink()
    os.rename(made, directory / PYTHON_DIR.lstrip("/"))
