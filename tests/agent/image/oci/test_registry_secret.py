"""The variables of a secret say which login they are, and what is missing or too many is told by name alone."""

from __future__ import annotations

import pytest

from squall.agent.image.oci.credentials import AwsKeys, Credentials
from squall.agent.image.oci.registry_secret import BadSecret, Login, login_of

USER = {"REGISTRY_USERNAME": "reader", "REGISTRY_PASSWORD": "s3cret"}
ACCOUNT = {"SERVICE_ACCOUNT_JSON": '{"key": "s3cret"}'}
AWS = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_REGION": "eu-west-1"}


@pytest.mark.parametrize(
    ("known", "login"),
    [
        (USER, Credentials("reader", "s3cret")),
        (ACCOUNT, Credentials("_json_key", '{"key": "s3cret"}')),
        (AWS, AwsKeys("AKIA1", "s3cret", "eu-west-1")),
        ({**AWS, "AWS_SESSION_TOKEN": "t0ken"}, AwsKeys("AKIA1", "s3cret", "eu-west-1", "t0ken")),
        ({**AWS, "AWS_ENDPOINT_URL": "http://a.test"}, AwsKeys("AKIA1", "s3cret", "eu-west-1", "", "http://a.test")),
        ({**USER, "AWS_REGION": "eu-west-1"}, Credentials("reader", "s3cret")),
        ({**USER, "AWS_ACCESS_KEY_ID": "AKIA1"}, Credentials("reader", "s3cret")),
        ({**USER, "AWS_ROLE_ARN": "arn:aws:iam::1:role/a"}, Credentials("reader", "s3cret")),
        ({**USER, "OTHER": "x", "SERVICE_ACCOUNT_JSON": ""}, Credentials("reader", "s3cret")),
    ],
)
def test_names_say_which_login_it_is(known: dict[str, str], login: Login) -> None:
    assert login_of(known) == login
    assert "s3cret" not in repr(login)
    assert "t0ken" not in repr(login)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "its secret has nothing; give"),
        ({"REGISTRY_USERNAME": "s3cret"}, "its secret has REGISTRY_USERNAME; give"),
        ({"AWS_REGION": "s3cret"}, "its secret has AWS_REGION; give"),
        ({**USER, **ACCOUNT}, "REGISTRY_PASSWORD, REGISTRY_USERNAME, SERVICE_ACCOUNT_JSON; give"),
        ({**USER, **AWS}, "AWS_SECRET_ACCESS_KEY, REGISTRY_PASSWORD, REGISTRY_USERNAME; give"),
        ({**ACCOUNT, **AWS}, "AWS_SECRET_ACCESS_KEY, SERVICE_ACCOUNT_JSON; give"),
        ({**AWS, "AWS_REGION": ""}, "AWS keys without AWS_REGION; give"),
        ({"AWS_ACCESS_KEY_ID": "s3cret"}, "AWS keys without AWS_SECRET_ACCESS_KEY and AWS_REGION; give"),
        ({"AWS_ROLE_ARN": "s3cret", "AWS_REGION": "eu-west-1"}, "take keys of that role: `aws sts assume-role`"),
        ({**AWS, "AWS_ROLE_ARN": "s3cret"}, "nothing vouches for containers of this server before AWS"),
    ],
)
def test_what_is_no_login_or_several_is_refused(known: dict[str, str], words: str) -> None:
    with pytest.raises(BadSecret) as caught:
        login_of(known)

    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)
