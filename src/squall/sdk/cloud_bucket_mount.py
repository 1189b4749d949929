"""Buckets of a store that speaks S3, as values of `volumes=`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.exception import InvalidError
from squall.protocol.bucket import BucketMount, bucket_problem
from squall.sdk._options import check_flag
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text
from squall.sdk.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_EXAMPLE_TARGET = "/bucket"


class CloudBucketMount:
    """A bucket that containers see as a directory: `volumes={"/data": squall.CloudBucketMount("my-bucket", …)}`.

    The store is Amazon S3 or, with `bucket_endpoint_url`, any that speaks its protocol. What is there are its objects:
    a file that was closed is in the bucket when `close` has returned, and what others change is seen when a file is
    opened. See docs/storage.md for what is promised and what is not.

    The keys are in a secret: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and if needed `AWS_SESSION_TOKEN` and
    `AWS_REGION`; or `GOOGLE_ACCESS_KEY_ID` and `GOOGLE_ACCESS_KEY_SECRET`. Code in the container is not given them.
    """

    @checked("squall.CloudBucketMount")
    def __init__(
        self,
        bucket_name: str,
        bucket_endpoint_url: str | None = None,
        key_prefix: str | None = None,
        secret: Secret | None = None,
        oidc_auth_role_arn: str | None = None,
        read_only: bool = False,
        requester_pays: bool = False,
        force_path_style: bool = False,
    ) -> None:
        """
        Args:
            key_prefix: only keys that begin with it are seen, without it; it ends with a slash.
            secret: without one the store is asked as by anybody, which public buckets allow.
            force_path_style: the bucket's name goes into the path of requests. So it does for addresses in any case.

        Raises:
            InvalidError: a value is impossible, or of a later version.
        """
        what = f"CloudBucketMount({value_text(bucket_name)})"
        if oidc_auth_role_arn is not None:
            raise InvalidError(f"{what}: oidc_auth_role_arn= is not in this version of Squall yet; give a secret=")
        texts = {"bucket_name": bucket_name, "bucket_endpoint_url": bucket_endpoint_url, "key_prefix": key_prefix}
        for name, value in texts.items():
            if not isinstance(value, str) and (value is not None or name == "bucket_name"):
                raise InvalidError(f"{what}: {name}={value_text(value)} must be a string")
        if secret is not None and not isinstance(secret, Secret):
            raise InvalidError(f"{what}: secret= must be a squall.Secret, not a {type(secret).__name__}")
        check_flag("read_only", read_only, what)
        check_flag("requester_pays", requester_pays, what)
        check_flag("force_path_style", force_path_style, what)
        if requester_pays and secret is None:
            raise InvalidError(f"{what}: requester_pays= needs a secret=: somebody has to pay")
        self.bucket_name = bucket_name
        self.bucket_endpoint_url = bucket_endpoint_url
        self.key_prefix = key_prefix
        self.secret = secret
        self.read_only = read_only
        self.requester_pays = requester_pays
        self.force_path_style = force_path_style
        if problem := bucket_problem(self._record(_EXAMPLE_TARGET, "")):
            raise InvalidError(f"{what}: {problem}")

    async def mount_at(self, target: str, name_secret: Callable[[Secret], Awaitable[str]]) -> BucketMount:
        """Its record, once its secret has an id.

        Args:
            name_secret: the id of a secret; empty where nothing is in it.
        """
        return self._record(target, "" if self.secret is None else await name_secret(self.secret))

    def _record(self, target: str, secret_id: str) -> BucketMount:
        return BucketMount(
            self.bucket_name,
            target,
            self.bucket_endpoint_url or "",
            self.key_prefix or "",
            secret_id,
            self.read_only,
            self.requester_pays,
            self.force_path_style,
        )

    def __repr__(self) -> str:
        return f"CloudBucketMount({self.bucket_name!r})"
