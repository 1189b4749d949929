"""What `.with_options(…)` gives to a function that has an id on the server: secrets, volumes and buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from squall.protocol.bucket import BucketMount
    from squall.protocol.volume import VolumeMount
    from squall.sdk._client import Client
    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.secret import Secret


class Found(NamedTuple):
    """As the server understands it; None of what is not given."""

    secrets: tuple[str, ...] | None = None
    volumes: tuple[VolumeMount, ...] | None = None
    buckets: tuple[BucketMount, ...] | None = None


class Given:
    """What one variant has of it. Each function that it is made of names it once, however often it is called."""

    __slots__ = ("_found", "_secrets", "_volumes")

    def __init__(self, secrets: tuple[Secret, ...] | None, volumes: Mapping[str, Mounted] | None) -> None:
        self._secrets = secrets
        self._volumes = volumes
        self._found: dict[str, Found] = {}

    def over(self, earlier: Given | None) -> Given:
        """Both; of what both have, the later."""
        if earlier is None:
            return self
        return Given(
            earlier._secrets if self._secrets is None else self._secrets,
            earlier._volumes if self._volumes is None else self._volumes,
        )

    def known(self, base_id: str) -> Found | None:
        """What it is, as far as it is known."""
        return self._found.get(base_id)

    async def resolve(self, base_id: str, client: Client) -> Found:
        """What it is.

        Raises:
            Error: as `Secret.id_for`, and `mounts_of`.
        """
        found = self._found.get(base_id)
        if found is None:
            found = Found()
            if self._secrets is not None:
                from squall.sdk._given_secrets import ids_of  # cold start: variants with secrets only

                found = found._replace(secrets=tuple(await ids_of(self._secrets, client, function_id=base_id)))
            if self._volumes is not None:
                from squall.sdk._volume_mounts import mounts_of  # cold start: variants with volumes only

                volumes, buckets = await mounts_of(
                    self._volumes, client, lambda secret: secret.id_for(client, function_id=base_id)
                )
                found = found._replace(volumes=volumes, buckets=buckets)
            self._found[base_id] = found
        return found
