"""Keys of the installation: everything secret at rest hangs on one master key.

The master key is 32 random bytes in a file of its own (mode 0600) or in ``ONEKEY_MASTER_KEY``. From it come,
by HKDF-SHA-256 with a label each, the pepper of terminal secrets (D6), the keys that wrap data keys and that sign
checkpoints of the journal (D15), and the key of signed links. Losing it loses the sealed directory, so it belongs into
the backup, apart from the data.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from uuid import UUID, uuid4

import orjson
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.config import Settings

__all__ = ["DataKey", "ErasedKey", "Keyring", "KeyringError", "PublicKey", "keyring_of"]

_NONCE = 12


class KeyringError(Exception):
    """The master key is missing, malformed, or not the one that sealed the data."""


class ErasedKey(Exception):
    """The data key was erased, and with it everything it sealed."""


class DataKey:
    """One data key, unwrapped. Seals JSON values; the associated data binds a ciphertext to its place."""

    def __init__(self, key_id: UUID, key: bytes) -> None:
        """Hold `key` (32 bytes)."""
        self.id = key_id
        self._aead = AESGCM(key)

    def seal(self, value: object, *, about: str) -> bytes:
        """Encrypt `value` as JSON: nonce, then ciphertext with tag."""
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, orjson.dumps(value), about.encode())

    def open(self, sealed: bytes, *, about: str) -> object:
        """Decrypt what `seal` made.

        Raises:
            KeyringError: Another key sealed it, it was altered, or it stands in a place it was not made for.
        """
        try:
            plain = self._aead.decrypt(sealed[:_NONCE], sealed[_NONCE:], about.encode())
        except (InvalidTag, ValueError) as exc:
            raise KeyringError(f"cannot decrypt {about}") from exc
        value: object = orjson.loads(plain)
        return value


class PublicKey:
    """The key with which anybody can check a checkpoint of the journal (Ed25519)."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Hold `key`."""
        self._key = key
        self.raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.name = hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def pem(self) -> str:
        """The key in the form that other programs read."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def signed(self, text: bytes, signature: bytes, name: str) -> bool:
        """Did the owner of this key, which the signature calls `name`, sign `text`?"""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return name == self.name


class Keyring:
    """The keys derived from the master key. Small and stateless; safe to share between tasks."""

    def __init__(self, master: bytes) -> None:
        """Derive from `master`.

        Raises:
            KeyringError: Not 32 bytes.
        """
        if len(master) != 32:
            raise KeyringError(f"the master key has {len(master)} bytes, it must have 32")
        self._pepper = self._derive(master, b"onekey terminal pepper v1")
        self._wrapping = AESGCM(self._derive(master, b"onekey data key wrapping v1"))
        self._links = self._derive(master, b"onekey signed links v1")
        self._signing = Ed25519PrivateKey.from_private_bytes(self._derive(master, b"onekey journal checkpoints v1"))
        self.public = PublicKey(self._signing.public_key())
        self._unwrap = lru_cache(maxsize=100_000)(self._unwrap_now)

    @staticmethod
    def _derive(master: bytes, label: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(master)

    @classmethod
    def from_text(cls, text: str) -> "Keyring":
        """Read a master key written as base64."""
        try:
            return cls(base64.b64decode(text, validate=True))
        except ValueError as exc:  # binascii.Error is one
            raise KeyringError("the master key is not base64") from exc

    @classmethod
    def load(cls, path: Path, *, create: bool) -> "Keyring":
        """Read the master key file, or make it when `create` and it is not there.

        Raises:
            KeyringError: Missing, readable by others, or malformed.
        """
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = base64.b64encode(secrets.token_bytes(32))
            fresh = path.with_name(f".{path.name}.{os.getpid()}")
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, text + b"\n")
                os.fsync(handle)
            finally:
                os.close(handle)
            try:
                os.link(fresh, path)  # never replaces a key that somebody else made meanwhile
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        try:
            mode = path.stat().st_mode & 0o077
            text = path.read_bytes().strip()
        except OSError as exc:
            raise KeyringError(f"cannot read the master key {path}: {exc.strerror}") from exc
        if mode:
            raise KeyringError(f"{path} is open to other users: chmod 600 {path}")
        return cls.from_text(text.decode("ascii", "replace"))

    def mac(self, purpose: str, *parts: str) -> bytes:
        """Return the keyed hash of a secret; `purpose` keeps terminals, platforms and API keys apart."""
        message = "\x00".join((purpose, *parts)).encode()
        return hmac.new(self._pepper, message, hashlib.sha256).digest()

    def area(self, site: str, kind: str, words: Sequence[str]) -> UUID:
        """Return the id of an area: the same for the same words, which nobody can guess from it."""
        return UUID(bytes=self.mac("area", site, kind, *words)[:16])

    def new_key(self) -> tuple[UUID, bytes]:
        """Make a data key; returns its id and its wrapped form for the table ``data_key``."""
        key_id = uuid4()
        nonce = os.urandom(_NONCE)
        return key_id, nonce + self._wrapping.encrypt(nonce, secrets.token_bytes(32), key_id.bytes)

    def unwrap(self, key_id: UUID, wrapped: bytes | None) -> DataKey:
        """Return the data key `key_id`.

        Raises:
            ErasedKey: It was erased.
            KeyringError: This master key did not wrap it.
        """
        if wrapped is None:
            raise ErasedKey(f"data key {key_id} was erased")
        return self._unwrap(key_id, bytes(wrapped))

    def _unwrap_now(self, key_id: UUID, wrapped: bytes) -> DataKey:
        try:
            return DataKey(key_id, self._wrapping.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], key_id.bytes))
        except (InvalidTag, ValueError) as exc:
            raise KeyringError("the master key is not the one that sealed this database") from exc

    def sign(self, text: bytes) -> bytes:
        """Sign a checkpoint of the journal; the same text always gives the same signature."""
        return self._signing.sign(text)

    def link_token(self, leg: UUID) -> str:
        """Return the token of a leg's answer page: the leg's id and 128 bits of keyed hash, URL-safe."""
        return base64.urlsafe_b64encode(leg.bytes + self._link_mac(leg)).rstrip(b"=").decode()

    def read_link(self, token: str) -> UUID | None:
        """Return the leg of a token, or None when we did not make it."""
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        if len(raw) != 32:
            return None
        leg = UUID(bytes=raw[:16])
        return leg if hmac.compare_digest(raw[16:], self._link_mac(leg)) else None

    def _link_mac(self, leg: UUID) -> bytes:
        return hmac.digest(self._links, leg.bytes, "sha256")[:16]


def keyring_of(settings: Settings, *, create: bool = False) -> Keyring:
    """Return the keys of this installation.

    Raises:
        KeyringError: The master key is missing or malformed.
    """
    if settings.master_key is not None:
        return Keyring.from_text(settings.master_key.get_secret_value())
    return Keyring.load(settings.master_key_file, create=create)
