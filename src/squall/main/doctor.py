"""Run the checks of `squall doctor` and print them as JSON: `python -m squall.main.doctor --data-dir D`.

A program of its own because the command line may not import the runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from urllib.parse import urlsplit

from squall.agent.image.bases.debian import known_bases
from squall.agent.image.bases.python_image import image_for
from squall.agent.image.machine.settings import read_machine_settings
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.registry import ask
from squall.main.config import DEFAULT_HTTP_PORT, Config, ConfigError, read_config
from squall.main.data_dir import read_server_file
from squall.runtime.checks import Check, run_checks
from squall.runtime.checks.machine import check_port

REGISTRY_ANSWER_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the checks; always 0: whether they are good is for the reader to say."""
    parser = argparse.ArgumentParser(prog="python -m squall.main.doctor", description=__doc__)
    parser.add_argument("--data-dir", required=True)
    options = parser.parse_args(arguments)
    # The clock's being right is one of the checks: it is compared with files and mirrors.
    checks = run_checks(options.data_dir, now_s=time.time(), env=dict(os.environ))  # tidy: wall clock
    try:
        config = read_config(os.environ, options.data_dir)
    except ConfigError as error:
        checks.append(Check("configuration", "fail", str(error), "set it right, or unset it"))
    else:
        checks.append(check_server_port(config))
        checks.append(check_python_images(config, os.environ))
    json.dump([asdict(check) for check in checks], sys.stdout)
    return 0


def check_server_port(config: Config) -> Check:
    """Whether the server can listen where it is to, or does already."""
    port = DEFAULT_HTTP_PORT if config.http_port is None else config.http_port
    check = check_port(port, config.http_host)
    if check.status != "fail":
        return check
    running = read_server_file(config.data_dir)
    if running is not None and urlsplit(running.url).port == port:
        return Check(check.name, "ok", f"the server listens there: {running.url}")
    if config.http_port is None:
        return Check(check.name, "ok", f"taken by another program ({check.finding}): the server takes any free one")
    return check


def check_python_images(config: Config, environ: Mapping[str, str]) -> Check:
    """Whether a registry serves bases with any Python, asked in the way builds ask."""
    name = "Python images"
    pattern = config.python_image
    settings = read_machine_settings(environ)
    have = ", ".join(sorted({base.python_version for base in known_bases(settings)})) or "none"
    if not pattern:
        return Check(name, "ok", f"no registry is asked (SQUALL_PYTHON_IMAGE=none); of Debian's packages: {have}")
    image = image_for(pattern, f"{sys.version_info.major}.{sys.version_info.minor}")
    try:
        ask(image, settings, REGISTRY_ANSWER_S)
    except RegistryFailure as failure:
        fix = (
            "check DNS, firewall, HTTPS_PROXY and registries.conf(5); SQUALL_PYTHON_IMAGE names another image, or none"
        )
        return Check(name, "warn", f"no registry serves {failure}; of Debian's packages: {have}", fix)
    return Check(name, "ok", f"a registry serves {image}; of Debian's packages: {have}")


if __name__ == "__main__":
    sys.exit(main())
