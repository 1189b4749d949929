"""AES-256-GCM, by OpenSSL."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class AesGcm:
    """See `Cipher`."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, nonce: bytes, clear: bytes, bound_to: bytes) -> bytes:
        """See `Cipher`."""
        return self._aead.encrypt(nonce, clear, bound_to)

    def decrypt(self, nonce: bytes, sealed: bytes, bound_to: bytes) -> bytes | None:
        """See `Cipher`."""
        try:
            return self._aead.decrypt(nonce, sealed, bound_to)
        except InvalidTag:
            return None
