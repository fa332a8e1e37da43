"""The one object that makes a place a repository: its id, its chunk parameters, its owner's public
key.

It is readable without a key, and authenticated under the repository secret, so that nobody who can
write to the store can swap the public key that data keys are sealed to.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from blake3 import blake3

from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.errors import NotARepository, ObjectDamaged, ObjectMissing
from backpoint_repo.format import CONFIG_KEY, HEADER, Kind, expect_header, header
from backpoint_repo.keyring import OWNER_PUBLIC_SIZE
from backpoint_repo.record import Record, encode_record
from backpoint_repo.store.contract import Store

REPOSITORY_ID_SIZE = 16
_MAC_SIZE = 32


@dataclass(frozen=True)
class Config:
    """What is fixed when a repository is made. created: seconds since 1970, UTC."""

    repository_id: bytes
    created: float
    chunks: ChunkParameters
    owner_public: bytes

    def encode(self, config_key: bytes) -> bytes:
        """header, MAC (keyed BLAKE3 of header and record), record."""
        chunks = self.chunks
        record = encode_record(
            {
                "repository": self.repository_id,
                "created": self.created,
                "avg_blocks": chunks.avg_blocks,
                "min_blocks": chunks.min_blocks,
                "max_blocks": chunks.max_blocks,
                "hole_blocks": chunks.hole_blocks,
                "owner_public": self.owner_public,
            }
        )
        return header(Kind.CONFIG) + _mac(record, config_key) + record


@dataclass(frozen=True)
class UnverifiedConfig:
    """A configuration as read, before a credential vouches for it."""

    config: Config
    record: bytes
    mac: bytes

    def verified(self, config_key: bytes) -> Config:
        """Raises ObjectDamaged where it was altered or belongs to another repository."""
        if not hmac.compare_digest(_mac(self.record, config_key), self.mac):
            raise ObjectDamaged(
                f"{CONFIG_KEY}: fails authentication: it was altered, or this credential belongs "
                "to another repository"
            )
        return self.config


def read_config(store: Store) -> UnverifiedConfig:
    """Raises NotARepository, UnknownFormat, ObjectDamaged."""
    try:
        data = store.get(CONFIG_KEY)
    except ObjectMissing:
        raise NotARepository(
            f"there is no repository at {store.address}; `backpoint init` makes one"
        ) from None
    expect_header(data, Kind.CONFIG, CONFIG_KEY)
    mac = data[HEADER.size : HEADER.size + _MAC_SIZE]
    payload = data[HEADER.size + _MAC_SIZE :]
    record = Record.decode(payload, CONFIG_KEY)
    chunks = ChunkParameters(
        record.natural("avg_blocks"),
        record.natural("min_blocks"),
        record.natural("max_blocks"),
        record.natural("hole_blocks"),
    )
    if not chunks.is_sane():
        raise ObjectDamaged(f"{CONFIG_KEY}: impossible chunk parameters")
    config = Config(
        record.sized("repository", REPOSITORY_ID_SIZE),
        record.get("created", float),
        chunks,
        record.sized("owner_public", OWNER_PUBLIC_SIZE),
    )
    return UnverifiedConfig(config, payload, mac)


def _mac(record: bytes, config_key: bytes) -> bytes:
    return blake3(header(Kind.CONFIG) + record, key=config_key).digest()
