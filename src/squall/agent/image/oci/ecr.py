"""`python -m squall.agent.image.oci.ecr KEYS ANSWER`: ask AWS for the password that it gives for keys.

KEYS and ANSWER are numbers of open files in memory, for the reasons of `credentials.py`. A program of its own: botocore
takes 40 MB and most of a second, which an agent would never get rid of, and it reads its environment as it likes.
botocore is an extra (`squall[aws]`), because hardly a node needs it.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence

from botocore import exceptions
from botocore.config import Config
from botocore.session import Session

from squall.agent.image.oci.credentials import AwsKeys, path_of
from squall.agent.image.oci.refusal import UNAUTHORIZED, UNKNOWN, UNREACHABLE

_CONNECT_S = 10.0
_ANSWER_S = 20.0
_REFUSED = range(400, 500)


def main(arguments: Sequence[str]) -> int:
    """Ask, and write what comes of it where it is wanted; never a word of it to an output."""
    given, answer = (path_of(int(number)) for number in arguments)
    answer.write_text(json.dumps(_asked(AwsKeys(**json.loads(given.read_text())))))
    return 0


def _asked(keys: AwsKeys) -> dict[str, str]:
    """`password`, or `error` and which kind of a refusal it is."""
    config = Config(
        connect_timeout=_CONNECT_S, read_timeout=_ANSWER_S, retries={"mode": "standard", "total_max_attempts": 2}
    )
    try:
        client = Session().create_client(
            "ecr",
            region_name=keys.region,
            aws_access_key_id=keys.access_key_id,
            aws_secret_access_key=keys.secret_access_key,
            aws_session_token=keys.session_token or None,
            endpoint_url=keys.endpoint or None,
            config=config,
        )
        (found, *_) = client.get_authorization_token()["authorizationData"]
        return {"password": base64.b64decode(found["authorizationToken"]).decode().partition(":")[2]}
    except exceptions.ClientError as error:
        if "Throttl" in error.response.get("Error", {}).get("Code", ""):
            return {"error": f"{error}; build again in a moment"}
        is_refusal = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _REFUSED
        remedy = "check the keys, and that they allow ecr:GetAuthorizationToken"
        return {"error": f"{error}; {remedy}", "kind": UNAUTHORIZED if is_refusal else UNKNOWN}
    except exceptions.SSLError as error:
        return {"error": str(error)}
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        remedy = f"check AWS_REGION ({keys.region}), DNS, firewall and HTTPS_PROXY"
        return {"error": f"no network: {error}; {remedy}", "kind": UNREACHABLE}
    except (exceptions.BotoCoreError, ValueError, LookupError) as error:
        return {"error": f"{error or type(error).__name__}; check AWS_REGION ({keys.region})"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
