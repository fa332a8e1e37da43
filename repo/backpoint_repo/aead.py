"""The one cipher of the format: AES-256-OCB (RFC 7253), 96-bit nonces, 128-bit tags.

A nonce may be used once under a key; that is for the caller to see to.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESOCB3


class WrongTag(Exception):
    """The ciphertext, its key, its nonce or what it is bound to is not what was sealed."""


def encrypt(key: bytes, nonce: bytes, plain: bytes | memoryview, associated: bytes) -> bytes:
    """Ciphertext and tag. key: 32 bytes; nonce: 12 bytes."""
    return AESOCB3(key).encrypt(nonce, plain, associated)


def decrypt(key: bytes, nonce: bytes, sealed: bytes | memoryview, associated: bytes) -> bytes:
    """Undo `encrypt`. Raises WrongTag."""
    try:
        return AESOCB3(key).decrypt(nonce, sealed, associated)
    except InvalidTag as error:
        raise WrongTag from error
