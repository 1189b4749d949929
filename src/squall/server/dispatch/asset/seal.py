"""What is in secrets, encrypted and decrypted: AES-256-GCM, bound to whose it is.

The row that it stands in is authenticated with it: who can write the database can take a row away or put an old one
back, but not give a secret the values of another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from squall.protocol.errors import CONFLICT, PlatformError
from squall.server.model.secret import Cipher, SealedSecret

_NONCE_BYTES = 12
_ASSOCIATED = "squall secret 1"
_ID_OF_KEY, _MARKS_OF_KEY = b"squall key id", b"squall content marks"


@dataclass(frozen=True, slots=True)
class Whose:
    """What a sealed row is bound to."""

    secret_id: str
    app_id: str = ""


class Seal:
    """Keys in use: the first one encrypts, all of them decrypt."""

    def __init__(self, keys: tuple[bytes, ...], cipher: Callable[[bytes], Cipher]) -> None:
        assert keys, "there is one"
        self.key_id = _key_id(keys[0])
        self._ciphers = {_key_id(key): cipher(key) for key in keys}
        self._mark_key = hmac.digest(keys[0], _MARKS_OF_KEY, "sha256")

    def close(self, whose: Whose, values: Mapping[str, str], *, revision: int, now: float) -> SealedSecret:
        """What is to be stored of these values."""
        names = tuple(sorted(values))
        clear = json.dumps(dict(values), sort_keys=True, separators=(",", ":")).encode()
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[self.key_id].encrypt(nonce, clear, _bound_to(whose, self.key_id, names))
        mark = self._content_mark(whose, clear) if whose.app_id else ""
        return SealedSecret(
            whose.secret_id, whose.app_id, names, revision, self.key_id, nonce, ciphertext, mark, kept_at=now
        )

    def has_key_of(self, sealed: SealedSecret) -> bool:
        """Whether one of the keys may fit."""
        return sealed.key_id in self._ciphers

    def open(self, sealed: SealedSecret) -> dict[str, str]:
        """The values.

        Raises:
            PlatformError: `conflict`: no key fits, or it is not what was stored.
        """
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise PlatformError(CONFLICT, unreadable(sealed))
        bound_to = _bound_to(Whose(sealed.secret_id, sealed.app_id), sealed.key_id, sealed.names)
        clear = cipher.decrypt(sealed.nonce, sealed.ciphertext, bound_to)
        if clear is None:
            what = f"what is stored of secret {sealed.secret_id} is not what was written"
            raise PlatformError(CONFLICT, f"{what}; the database was damaged or changed; make it anew")
        values: dict[str, str] = json.loads(clear)
        return values

    def _content_mark(self, whose: Whose, clear: bytes) -> str:
        return hmac.new(self._mark_key, whose.app_id.encode() + b"\0" + clear, "sha256").hexdigest()


def unreadable(sealed: SealedSecret) -> str:
    """That none of the keys fits, and what to do."""
    what = f"secret {sealed.secret_id} was encrypted with a key ({sealed.key_id}) that this server has not"
    how = "start it with that key again (SQUALL_SECRET_KEY, or the file secret.key of its data directory)"
    return f"{what}; {how}, or make the secret anew"


def _key_id(key: bytes) -> str:
    """Tells keys apart, and nothing of one."""
    return hashlib.sha256(_ID_OF_KEY + key).hexdigest()[:16]


def _bound_to(whose: Whose, key_id: str, names: tuple[str, ...]) -> bytes:
    return json.dumps([_ASSOCIATED, whose.secret_id, whose.app_id, key_id, names]).encode()
