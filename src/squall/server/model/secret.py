"""What is remembered of secrets, and the contracts of whatever remembers it and of whatever has the keys.

Values reach the store encrypted only: nothing of it, its journals or its freed pages ever has a clear one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """What is in one secret, as it is stored."""

    secret_id: str
    app_id: str
    """Of one without a name, the app that it is of; else empty."""
    names: tuple[str, ...]
    """Of its variables, sorted."""
    revision: int
    """Another one whenever another value is in it: what tells who has the newest from who has not, and nothing else."""
    key_id: str
    nonce: bytes
    """Never the same twice: it tells whether the row is still the one that was read."""
    ciphertext: bytes
    content_mark: str
    """Of one without a name: the same for the same values in the same app, and by its key only."""
    kept_at: float
    """When it was last asked for to be named by a function."""
    last_used_at: float | None = None
    """When it was last given to a container or a build."""


class SecretStore(Protocol):
    """What is in secrets. Raises as `Store`."""

    async def put(self, secret: SealedSecret) -> SealedSecret:
        """Keep it, unless there is one of its id, or of its app with its content mark: that one is returned, and kept
        from then on."""

    async def get(self, secret_ids: frozenset[str]) -> tuple[SealedSecret, ...]:
        """Those of these that there are."""

    async def replace(self, nonce: bytes, secret: SealedSecret) -> bool:
        """Put it in the place of the one of its id that has that nonce; False where that is not there any more."""

    async def sealed_otherwise(self, key_id: str, after: str, limit: int) -> tuple[SealedSecret, ...]:
        """Those that another key has encrypted, by id, from behind that one on."""

    async def count_of(self, app_id: str) -> int:
        """How many an app has."""

    async def use(self, used_at: dict[str, float]) -> None:
        """Note when these were last given to somebody."""

    async def delete(self, secret_id: str) -> None:
        """Forget one that is no asset: of an app, or whose making came to nothing."""

    async def prune(self, before: float) -> int:
        """Forget those kept last before that time that nothing leads to: of an app, which no function, variant or
        version of it names any more, or which has stopped; and others that are no asset. Returns how many."""


class Cipher(Protocol):
    """Encrypts with one key, authenticated."""

    def encrypt(self, nonce: bytes, clear: bytes, bound_to: bytes) -> bytes:
        """What can be decrypted with this nonce, and bound to the same, only."""

    def decrypt(self, nonce: bytes, sealed: bytes, bound_to: bytes) -> bytes | None:
        """The other way round; None of what was not encrypted so."""


class SecretKeys(Protocol):
    """The keys, 32 bytes each. They may block: call them beside the event loop."""

    def cipher(self, key: bytes) -> Cipher:
        """What encrypts with it."""

    @property
    def is_given(self) -> bool:
        """They are what the server was started with, and not its to make."""

    def read(self) -> tuple[bytes, ...]:
        """All there are: the first one encrypts.

        Raises:
            PlatformError: `conflict`, in words that say what to do.
        """

    def make(self) -> tuple[bytes, ...]:
        """The same; where there is none it is made, and on the disk when this returns.

        Raises:
            PlatformError: the same; `exhausted` when the disk is full.
        """

    def begin_rotation(self) -> tuple[bytes, ...]:
        """The same, with a new one in front, unless they are given, or a rotation has begun that has not ended."""

    def end_rotation(self) -> tuple[bytes, ...]:
        """Forget all but the first one, unless they are given."""
