"""Logins come out of the environment: one of them, whole, and by name."""

from __future__ import annotations

import click
import pytest

from squall.cli.registry_login import login_variables

USER = ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"]
AWS = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]
ALL = [*USER, "SERVICE_ACCOUNT_JSON", *AWS, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (USER, USER),
        (["SERVICE_ACCOUNT_JSON", "REGISTRY_USERNAME"], ["SERVICE_ACCOUNT_JSON"]),
        (AWS, AWS),
        ([*AWS, "AWS_SESSION_TOKEN"], [*AWS, "AWS_SESSION_TOKEN"]),
        ([*USER, "AWS_ACCESS_KEY_ID", "AWS_REGION"], USER),
        ([], None),
        (["REGISTRY_USERNAME", "AWS_REGION", "AWS_ACCESS_KEY_ID"], None),
    ],
)
def test_the_one_login_that_is_whole_is_taken(
    monkeypatch: pytest.MonkeyPatch, there: list[str], taken: list[str] | None
) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    for name in there:
        monkeypatch.setenv(name, "s3cret")

    if taken is not None:
        assert login_variables() == taken
        return
    with pytest.raises(click.UsageError, match="REGISTRY_USERNAME and REGISTRY_PASSWORD not set") as caught:
        login_variables()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("there", [[*USER, *AWS], [*USER, "SERVICE_ACCOUNT_JSON"], ["SERVICE_ACCOUNT_JSON", *AWS]])
def test_several_logins_that_are_whole_are_refused(monkeypatch: pytest.MonkeyPatch, there: list[str]) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    for name in there:
        monkeypatch.setenv(name, "s3cret")

    with pytest.raises(click.UsageError, match="several logins are set in the environment") as caught:
        login_variables()
    assert not [name for name in there if name not in str(caught.value)]
    assert "s3cret" not in str(caught.value)
