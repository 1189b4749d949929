"""Autoscalers changed by programs, objects of classes and the command line."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.installation import Installation

PROGRAM = """
import subprocess, sys
import squall

app = squall.App("scaled")


@app.function()
def square(x):
    return x * x


@app.cls()
class Thing:
    size: int = squall.parameter(default=1)

    @squall.method()
    def get(self):
        return self.size


@app.local_entrypoint()
def main():
    thing = Thing(size=3)
    print(square.remote(3), thing.get.remote())
    thing.update_autoscaler(min_containers=1, scaledown_window=7)
    print(thing.get.autoscaler.settings())
    print(Thing(size=4).get.autoscaler.settings())
    update = ["function", "autoscaler", "update", "scaled/square", "--max-containers", "3", "--json"]
    subprocess.run([sys.executable, "-c", "from squall.cli.entry import main; main()", *update], check=True)
    print(square.autoscaler.settings())
"""
SETTINGS = "FunctionAutoscalerSettings(min_containers={}, max_containers={}, scaledown_window={}, buffer_containers=0)"


def test_each_pool_has_settings_of_its_own(squall: Installation, tmp_path: Path) -> None:
    program = tmp_path / "scaled.py"
    program.write_text(PROGRAM)

    ended = squall.command("run", str(program), timeout_s=120)

    assert ended.code == 0, ended
    lines = [line for line in ended.out.splitlines() if line.startswith(("9", "Function"))]
    own, others, by_command = (1, None, 7), (0, None, 60), (0, 3, 60)
    assert lines == ["9 3", *(SETTINGS.format(*settings) for settings in (own, others, by_command))]
