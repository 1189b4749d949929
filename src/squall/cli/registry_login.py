"""Logins to registries, out of the environment: an argument everybody on the machine can read."""

from __future__ import annotations

import os

import click

_LOGINS = (
    ("REGISTRY_USERNAME", "REGISTRY_PASSWORD"),
    ("SERVICE_ACCOUNT_JSON",),
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"),
)
"""Parts of one count for nothing beside another that is whole, as in a secret: see the agent's `login_of`."""
_OPTIONAL = ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")

from_env_option = click.option(
    "--registry-secret-from-env",
    "has_secret",
    is_flag=True,
    help="Log in to the registry with REGISTRY_USERNAME and REGISTRY_PASSWORD of the environment, or with "
    "SERVICE_ACCOUNT_JSON, or with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION.",
)


def login_variables() -> list[str]:
    """The names of the variables that are a login.

    Raises:
        click.UsageError: there is none, or there are several.
    """
    whole = [names for names in _LOGINS if all(os.environ.get(name) for name in names)]
    if len(whole) > 1:
        found = "; ".join(", ".join(names) for names in whole)
        raise click.UsageError(
            f"--registry-secret-from-env: several logins are set in the environment ({found}); unset all but one"
        )
    for names in whole:
        more = [name for name in _OPTIONAL if os.environ.get(name)] if names == _LOGINS[-1] else []
        return [*names, *more]
    raise click.UsageError(
        "--registry-secret-from-env: REGISTRY_USERNAME and REGISTRY_PASSWORD not set in the environment, nor "
        "SERVICE_ACCOUNT_JSON, nor all of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
    )
