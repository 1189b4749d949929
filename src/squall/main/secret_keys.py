"""The keys of secrets: in a file beside the data, which only its owner can read, or given to the server.

The file has a key a line, as base64: the first one encrypts, all of them decrypt. It has more than one while a rotation
is under way: whoever finds it so goes on with that.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from squall.protocol.errors import CONFLICT, PlatformError, disk_full, is_disk_full

if TYPE_CHECKING:
    from squall.server.model.secret import Cipher

KEY_BYTES = 32
_FILE_BYTES_MAX = 4096
NAME = "secret.key"


class FileSecretKeys:
    """See `SecretKeys`.

    Args:
        given: those that the server was started with. What a file has decrypts beside them.
    """

    def __init__(self, data_dir: Path, given: tuple[bytes, ...] = ()) -> None:
        self._path = data_dir / NAME
        self._given = given

    @property
    def is_given(self) -> bool:
        """See `SecretKeys`."""
        return bool(self._given)

    def cipher(self, key: bytes) -> Cipher:
        """See `SecretKeys`."""
        # cold start: a server without secrets needs no OpenSSL
        from squall.server.store.aes_gcm import AesGcm

        return AesGcm(key)

    def read(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        try:
            return (*self._given, *self._read_file())
        except PlatformError:
            if self._given:
                return self._given
            raise

    def make(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        found = self.read()
        return found or self._write((secrets.token_bytes(KEY_BYTES),))

    def begin_rotation(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        found = self.read()
        if self._given or len(found) > 1:
            return found
        return self._write((secrets.token_bytes(KEY_BYTES), *found))

    def end_rotation(self) -> tuple[bytes, ...]:
        """See `SecretKeys`."""
        found = self.read()
        return found if self._given or len(found) < 2 else self._write(found[:1])

    def _read_file(self) -> tuple[bytes, ...]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unusable(f"it cannot be read: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                raise self._unusable("others may read it; make it its owner's alone (chmod 600)")
            text = file.read(_FILE_BYTES_MAX)
        keys = []
        for line in text.split():
            key = decoded(line.decode("ascii", "replace"))
            if key is None:
                raise self._unusable("a line of it is no key")
            keys.append(key)
        if not keys:
            raise self._unusable("it is empty")
        return tuple(keys)

    def _unusable(self, why: str) -> PlatformError:
        what = f"the key of secrets, {self._path}, cannot be used: {why}"
        how = "put back the file that was there, or give the key as SQUALL_SECRET_KEY; see docs/storage.md"
        return PlatformError(CONFLICT, f"{what}; {how}")

    def _write(self, keys: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Whatever happens meanwhile, the file is what it was or this."""
        fresh = self._path.with_name(f".{NAME}.new")
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
                file.flush()
                os.fsync(descriptor)
            os.rename(fresh, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full("the key of secrets", error) from error
            raise self._unusable(f"it cannot be written: {error.strerror}") from error
        return keys


def decoded(text: str) -> bytes | None:
    """A key that is written as base64; None of anything else."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
