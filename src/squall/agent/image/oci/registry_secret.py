"""Which login the variables of a secret are, told by their names."""

from __future__ import annotations

from collections.abc import Mapping

from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output
from squall.agent.image.oci.aws_login import exchange
from squall.agent.image.oci.credentials import AwsKeys, Credentials

_SERVICE_ACCOUNT_USER = "_json_key"
"""By which registries of one cloud know that the password is a service account's key."""
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
_REMEDY = (
    "give REGISTRY_USERNAME and REGISTRY_PASSWORD, or SERVICE_ACCOUNT_JSON, or AWS_ACCESS_KEY_ID, "
    "AWS_SECRET_ACCESS_KEY and AWS_REGION, and nothing of the others"
)
Login = Credentials | AwsKeys


class BadSecret(Exception):
    """A secret is no login.

    Attributes:
        remedy: what to give instead.
    """

    def __init__(self, cause: str, remedy: str = _REMEDY) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause = cause
        self.remedy = remedy


def login_of(known: Mapping[str, str]) -> Login:
    """The one login that these variables are; parts of another beside it count for nothing.

    Raises:
        BadSecret: they are none, only a part of one, or several.
    """
    found: list[Login] = []
    if known.get("REGISTRY_USERNAME") and known.get("REGISTRY_PASSWORD"):
        found.append(Credentials(known["REGISTRY_USERNAME"], known["REGISTRY_PASSWORD"]))
    if known.get("SERVICE_ACCOUNT_JSON"):
        found.append(Credentials(_SERVICE_ACCOUNT_USER, known["SERVICE_ACCOUNT_JSON"]))
    if not found and known.get("AWS_ROLE_ARN"):
        raise BadSecret(
            "its secret has AWS_ROLE_ARN, and nothing vouches for containers of this server before AWS",
            "take keys of that role: `aws sts assume-role` prints AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN for it; give them with AWS_REGION",
        )
    absent = [name for name in _AWS_KEYS if not known.get(name)]
    if not absent:
        key_id, secret_key, region = (known[name] for name in _AWS_KEYS)
        session_token, endpoint = known.get("AWS_SESSION_TOKEN", ""), known.get("AWS_ENDPOINT_URL", "")
        found.append(AwsKeys(key_id, secret_key, region, session_token, endpoint))
    if not found and any(known.get(name) for name in _AWS_KEYS[:2]):
        raise BadSecret(f"its secret has AWS keys without {' and '.join(absent)}")
    if len(found) != 1:
        raise BadSecret(f"its secret has {', '.join(sorted(known)) or 'nothing'}")
    return found[0]


def credentials_of(login: Login, name: str, settings: MachineSettings, output: Output) -> Credentials:
    """What the registry of an image is told. Blocks while keys are exchanged.

    Raises:
        RegistryFailure: nobody takes the keys.
    """
    return exchange(login, name, settings, output) if isinstance(login, AwsKeys) else login
