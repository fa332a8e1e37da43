"""The keys a credential gives, and what each is for.

The repository secret is in both credentials; every symmetric key is derived from it. The owner adds
the private half of the key that data keys are sealed to; the agent has only the public half. Knows
no slots, files or objects.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Final

from Crypto.Hash import SHA256
from Crypto.Protocol import HPKE
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import Hybrid

from backpoint_repo.errors import ObjectDamaged, OwnerKeyNeeded

SECRET_SIZE: Final = 32
DATA_KEY_SIZE: Final = 32
OWNER_PUBLIC_SIZE: Final = 1216
KEY_ID_SIZE: Final = 16
_ENCAPSULATED_SIZE: Final = 1120
SEALED_DATA_KEY_SIZE: Final = _ENCAPSULATED_SIZE + DATA_KEY_SIZE + 16
_HPKE_INFO: Final = b"backpoint v1 data key"
_XWING: Final = Hybrid.ParamSet.MLKEM768_X25519


@dataclass(frozen=True)
class Keyring:
    """Derived keys. `owner_private` (a 32-byte X-Wing seed) is None with the agent credential."""

    secret: bytes = field(repr=False)
    owner_public: bytes = field(repr=False)
    owner_private: bytes | None = field(repr=False, default=None)
    chunk_id_key: bytes = field(init=False, repr=False)
    node_id_key: bytes = field(init=False, repr=False)
    cut_key: bytes = field(init=False, repr=False)
    meta_key: bytes = field(init=False, repr=False)
    config_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("chunk_id", "node_id", "cut", "meta", "config"):
            object.__setattr__(self, f"{name}_key", _derive(self.secret, name))

    def seal_data_key(self, data_key: bytes, repository_id: bytes) -> bytes:
        """Encapsulation and ciphertext: only the owner's private key opens it."""
        public = Hybrid.HybridKey(param_set=_XWING, pk=self.owner_public)
        sender = HPKE.new(
            receiver_key=public, aead_id=HPKE.AEAD.AES256_GCM, info=_HPKE_INFO + repository_id
        )
        return bytes(sender.enc) + bytes(sender.seal(data_key))

    def open_data_key(self, sealed: bytes, repository_id: bytes) -> bytes:
        """The data key of a backup session.

        Raises OwnerKeyNeeded with the agent credential, ObjectDamaged where it does not open.
        """
        if self.owner_private is None:
            raise OwnerKeyNeeded(
                "the agent credential cannot read disk data: data keys are sealed to the owner. "
                "Use the owner's passphrase or the recovery key."
            )
        private = Hybrid.HybridKey(param_set=_XWING, seed=self.owner_private)
        try:
            receiver = HPKE.new(
                receiver_key=private,
                aead_id=HPKE.AEAD.AES256_GCM,
                info=_HPKE_INFO + repository_id,
                enc=sealed[:_ENCAPSULATED_SIZE],
            )
            return bytes(receiver.unseal(sealed[_ENCAPSULATED_SIZE:]))
        except ValueError as error:
            raise ObjectDamaged(f"a sealed data key does not open: {error}") from error


def owner_public_of(owner_private: bytes) -> bytes:
    """The X-Wing public key (1216 bytes) of a 32-byte private seed."""
    pair = Hybrid.HybridKey(param_set=_XWING, seed=owner_private)
    # The library has no exporter for hybrid keys yet; the pickling state of a public key is its
    # documented encoding (ML-KEM-768 key, then X25519 key).
    return bytes(pair.public_key().__getstate__()["pk"])


def data_key_id(sealed_data_key: bytes) -> bytes:
    """Names a data key by what is stored of it: no pack can list another key under its name."""
    return hashlib.sha256(sealed_data_key).digest()[:KEY_ID_SIZE]


def _derive(secret: bytes, label: str) -> bytes:
    key = HKDF(secret, 32, b"", SHA256, context=f"backpoint v1 {label}".encode())
    assert isinstance(key, bytes)
    return key
