"""A store that speaks S3, in a network of its own: what is in that, reaches it at 127.0.0.1."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from squall.runtime.spec import NetworkSlot
from tests.kernel.machine import inside_namespace

PORT = 5000
URL = f"http://127.0.0.1:{PORT}"
KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "planted-key-of-a-bucket"}
BUCKET = "the-bucket"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_MOTO = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)]


class Store:
    """moto's server with one bucket; everybody may do everything, unless it is told otherwise."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}
        command = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *_MOTO]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.s3().create_bucket(Bucket=BUCKET)
                break
            except BotoCoreError:
                assert self.process.poll() is None, f"moto's server ended with {self.process.returncode}"
                assert time.monotonic() < deadline, "moto's server does not start"
                time.sleep(0.1)
        path = f"/proc/{self.process.pid}/ns/net"
        self.slot = NetworkSlot("store", path, "10.0.0.2/32", "10.0.0.1", "nameserver 10.0.0.1\n")

    @contextmanager
    def _inside(self) -> Iterator[None]:
        descriptor = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY)
        try:
            with inside_namespace(descriptor):
                yield
        finally:
            os.close(descriptor)

    def s3(self) -> Any:
        """A client for calls within `inside`."""
        return _Inside(self, client_of(URL, "s3", self._keys))

    def iam(self) -> Any:
        return _Inside(self, client_of(URL, "iam", self._keys))

    def put(self, key: str, data: bytes, **fields: Any) -> None:
        self.s3().put_object(Bucket=BUCKET, Key=key, Body=data, **fields)

    def get(self, key: str) -> bytes:
        data: bytes = self.s3().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def delete(self, key: str) -> None:
        self.s3().delete_object(Bucket=BUCKET, Key=key)

    def keys(self) -> list[str]:
        """Of objects, without those that stand for directories."""
        listed = self.s3().list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return [one["Key"] for one in listed if not one["Key"].endswith("/")]

    def fill(self, count: int) -> None:
        """So many small objects below `many/`."""
        with self._inside():
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
            # Without the client's work, which takes longer than the store's.
            for number in range(count):
                connection.request("PUT", f"/{BUCKET}/many/{number:05}", b"x")
                connection.getresponse().read()
            connection.close()

    def enforce(self) -> dict[str, str]:
        """From now on only who has these keys may do anything; returns them."""
        iam = self.iam()
        iam.create_user(UserName="one")
        policy = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
        iam.put_user_policy(UserName="one", PolicyName="all", PolicyDocument=policy)
        key = iam.create_access_key(UserName="one")["AccessKey"]
        keys = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        with self._inside():
            body = urllib.request.Request(
                f"{URL}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST"
            )
            _DIRECT.open(body, timeout=10).close()
        self._keys = keys
        return keys

    def stall(self) -> None:
        """From now on nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(20)


class _Inside:
    """Calls of a client, each made in the store's network."""

    def __init__(self, store: Store, client: Any) -> None:
        self._store, self._client = store, client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(**fields: Any) -> Any:
            with self._store._inside():
                answer = method(**fields)
                if "Body" in answer:
                    data = answer["Body"].read()
                    answer["Body"] = _Read(data)
                return answer

        return call


class _Read:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        return self._data


def client_of(url: str, kind: str = "s3", keys: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Of a store that is asked directly, whatever proxies there are."""
    config = Config(proxies={}, connect_timeout=2, retries={"max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client(
        kind,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=keys.get("AWS_ACCESS_KEY_ID", "test"),
        aws_secret_access_key=keys.get("AWS_SECRET_ACCESS_KEY", "test"),
        config=config,
    )
