"""Certificates for tests, by OpenSSL's command."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(folder: Path, *arguments: str) -> None:
    """Run it there."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30, cwd=folder)


def make_certificate(folder: Path) -> tuple[str, str]:
    """One for this machine that nobody signed, and its key; where they are."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:*.apps.test"
    subject = ("-subj", "/CN=of a test", "-addext", names)
    openssl(folder, "req", "-x509", *key, "-keyout", "key.pem", "-out", "cert.pem", *subject)
    return str(folder / "cert.pem"), str(folder / "key.pem")
