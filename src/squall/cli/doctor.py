"""`squall doctor`: what this machine has and lacks, each with its fix."""

from __future__ import annotations

import json
import subprocess
import sys

import click

from squall.cli.server_calls import data_dir

_MARKS = {
    "ok": click.style("ok  ", fg="green"),
    "warn": click.style("warn", fg="yellow"),
    "fail": click.style("FAIL", fg="red", bold=True),
}


@click.command("doctor", epilog="Example: sudo squall doctor")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def doctor(is_json: bool) -> None:
    """Check root, kernel, cgroups, tools, ports, firewall, disk and registries; exit code 1 if something fails."""
    # The checks live with the runtime, which the command line may not import: they run as a program.
    command = [sys.executable, "-m", "squall.main.doctor", "--data-dir", data_dir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise click.ClickException(f"the checks did not run: {done.stderr.strip()[-2000:]}")
    checks = json.loads(done.stdout)
    if is_json:
        click.echo(json.dumps(checks, indent=2))
    else:
        for check in checks:
            click.echo(f"{_MARKS.get(check['status'], check['status'])}  {check['name']}: {check['finding']}")
            if check["status"] != "ok" and check["fix"]:
                click.echo(f"      fix: {check['fix']}")
    sys.exit(1 if any(check["status"] == "fail" for check in checks) else 0)
