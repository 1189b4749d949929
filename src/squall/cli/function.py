"""`squall function`: one function of an app that runs or is deployed."""

from __future__ import annotations

import click

from squall.cli.autoscaler import autoscaler_group


@click.group("function", epilog="Example: squall function autoscaler settings my-app/square")
def function_group() -> None:
    """Functions of apps that run or are deployed."""


function_group.add_command(autoscaler_group)
