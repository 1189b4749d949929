"""Exchanges AWS keys for the password of a registry in ECR, by the program that is for it (`ecr.py`)."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict

from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci.credentials import AwsKeys, Credentials, file_in_memory, path_of
from squall.agent.image.oci.refusal import UNKNOWN, RegistryFailure

_USER = "AWS"
"""Whom registries of ECR know, whoever's keys they were."""
_TIMEOUT_S = 90.0
_MISSING = (
    "pip install 'squall[aws]' there, or give what `aws ecr get-login-password` prints as REGISTRY_PASSWORD, with "
    "REGISTRY_USERNAME=AWS"
)


def exchange(keys: AwsKeys, name: str, settings: MachineSettings, output: Output) -> Credentials:
    """The user and password, good for some hours, that AWS gives for keys. Blocks.

    Args:
        name: the image they are wanted for, as errors have it.

    Raises:
        RegistryFailure: it gives none.
    """
    if importlib.util.find_spec("botocore") is None:
        raise RegistryFailure(f"{name}: AWS keys need botocore, which this node has not; {_MISSING}")
    content = json.dumps(asdict(keys))
    with file_in_memory("keys", content) as given, file_in_memory("answer", "") as answer:
        command = (*WITH_PARENT, *own_program("squall.agent.image.oci.ecr", str(given), str(answer)))
        quiet = Output(is_cancelled=output.is_cancelled, hidden=output.hidden.and_of(keys.hidden))
        try:
            run_tool(command, _environ(settings), quiet, Watch(_TIMEOUT_S), (given, answer))
        except ToolFailed as failure:
            raise RegistryFailure(f"{name}: cannot exchange the AWS keys for a password: {failure}") from None
        said = json.loads(path_of(answer).read_text())
    if not said.get("password"):
        # AWS may repeat what was signed, the session's token with it.
        error = quiet.hidden.hide(said.get("error", "the answer has none"))
        message = f"{name}: cannot exchange the AWS keys for a password: {error}"
        raise RegistryFailure(message, kind=said.get("kind", UNKNOWN))
    return Credentials(_USER, said["password"], known_as="the AWS keys")


def _environ(settings: MachineSettings) -> dict[str, str]:
    """What it needs to reach AWS as this machine does, and no keys or settings of somebody else on it."""
    # Not AWS_ENDPOINT_URL of this machine: that is where its bucket of layers is.
    endpoint = settings.registry_env.get("AWS_ENDPOINT_URL_ECR", "")
    return {
        **own_environ(),
        **settings.proxies,
        **({"AWS_CA_BUNDLE": settings.ca_bundle} if settings.ca_bundle else {}),
        **({"AWS_ENDPOINT_URL_ECR": endpoint} if endpoint else {}),
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
