"""Bytes that only the owner can open: what shows a guest's content, and is no part of its disks.

Decides how such bytes are sealed and bound to their place in the store. Any credential may seal;
knows no objects, and nothing of what is in the box.
"""

from __future__ import annotations

import secrets
from typing import Final

from blake3 import blake3

from backpoint_repo import aead
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import TAG_SIZE
from backpoint_repo.keyring import DATA_KEY_SIZE, SEALED_DATA_KEY_SIZE
from backpoint_repo.sealed_store import SealedStore

BOX_OVERHEAD: Final = SEALED_DATA_KEY_SIZE + TAG_SIZE
_NONCE: Final = bytes(12)
_LABEL: Final = b"owner box"


def seal_for_owner(sealed: SealedStore, place: str, plain: bytes) -> bytes:
    """A key of its own sealed to the owner, then ciphertext and tag. place: a store key."""
    drawn = secrets.token_bytes(DATA_KEY_SIZE)
    box = aead.encrypt(_box_key(drawn), _NONCE, plain, place.encode())
    return sealed.keyring.seal_data_key(drawn, sealed.repository_id) + box


def open_as_owner(sealed: SealedStore, place: str, box: bytes) -> bytes:
    """Undo `seal_for_owner`. Raises OwnerKeyNeeded with the agent credential, ObjectDamaged."""
    check_box(place, box)
    drawn = sealed.keyring.open_data_key(box[:SEALED_DATA_KEY_SIZE], sealed.repository_id)
    try:
        return aead.decrypt(
            _box_key(drawn), _NONCE, memoryview(box)[SEALED_DATA_KEY_SIZE:], place.encode()
        )
    except aead.WrongTag as error:
        raise ObjectDamaged(f"{place}: what is sealed to the owner is altered") from error


def check_box(place: str, box: bytes) -> None:
    """What can be told without the owner's key. Raises ObjectDamaged."""
    if len(box) < BOX_OVERHEAD:
        raise ObjectDamaged(f"{place}: what is sealed to the owner is cut off")


def _box_key(drawn: bytes) -> bytes:
    """Used for one box only, so a constant nonce is safe; never equal to the data key of a pack,
    whose sealed form somebody might put here."""
    return blake3(_LABEL, key=drawn).digest()
