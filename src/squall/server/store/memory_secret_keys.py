"""Keys of secrets in memory, for tests."""

from __future__ import annotations

import secrets

from squall.server.model.secret import Cipher
from squall.server.store.aes_gcm import AesGcm


class MemorySecretKeys:
    """See `SecretKeys`."""

    is_given = False

    def __init__(self) -> None:
        self.keys: tuple[bytes, ...] = ()

    def cipher(self, key: bytes) -> Cipher:
        """See `SecretKeys`."""
        return AesGcm(key)

    def read(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        return self.keys

    def make(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        self.keys = self.keys or (secrets.token_bytes(32),)
        return self.keys

    def begin_rotation(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        if len(self.keys) < 2:
            self.keys = (secrets.token_bytes(32), *self.keys)
        return self.keys

    def end_rotation(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        self.keys = self.keys[:1]
        return self.keys
