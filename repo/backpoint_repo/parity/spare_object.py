"""A spare as it is stored: the code's bytes, then the sealed record of its group, then a trailer.

Every spare has the whole record, so any one of them is enough to know the group. Its bytes are not
sealed: they are sums of sealed ones, and the record has their digests.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import HEADER, Kind, expect_header, header, object_key
from backpoint_repo.parity.group import Group, Spare
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import open_record, seal_record
from backpoint_repo.store.contract import Piece

_TRAILER: Final = struct.Struct("<I4x8s")  # sealed record's length, magic
_TRAILER_MAGIC: Final = b"BCKPPAR1"
_RECORD_SIZE_MAX: Final = 16 << 20
_TAIL_GUESS: Final = 16 << 10
"""Bytes read from a spare's end at first: the record of 10 + 2 packs of 32 MiB fits."""


def put_spare(sealed: SealedStore, group: Group, spare: Spare, body: Sequence[Piece]) -> None:
    """Store one. body: its columns, in order."""
    record = seal_record(
        Kind.PARITY, spare.key, group.encode(), sealed.keyring.meta_key, sealed.packer
    )
    trailer = _TRAILER.pack(len(record), _TRAILER_MAGIC)
    sealed.store.put(spare.key, [header(Kind.PARITY), *body, record, trailer])


def read_group(sealed: SealedStore, name: bytes) -> Group:
    """The group that a spare says it belongs to. Raises ObjectMissing, ObjectDamaged, UnknownFormat
    and StoreUnavailable."""
    key = object_key(Kind.PARITY, name.hex())
    size, tail = sealed.store.get_tail(key, _TAIL_GUESS)
    head = tail if size <= len(tail) else sealed.store.get_range(key, 0, HEADER.size)
    expect_header(head, Kind.PARITY, key)
    if len(tail) < _TRAILER.size:
        raise ObjectDamaged(f"{key}: truncated")
    length, magic = _TRAILER.unpack_from(tail, len(tail) - _TRAILER.size)
    start = size - _TRAILER.size - length
    if magic != _TRAILER_MAGIC or start < HEADER.size or length > _RECORD_SIZE_MAX:
        raise ObjectDamaged(f"{key}: has no trailer (truncated or overwritten)")
    if length + _TRAILER.size > len(tail):
        tail = sealed.store.get_range(key, start, length + _TRAILER.size)
    record = tail[len(tail) - _TRAILER.size - length : len(tail) - _TRAILER.size]
    payload = open_record(Kind.PARITY, key, record, sealed.keyring.meta_key, sealed.packer)
    group = Group.decode(payload, key)
    if name not in {spare.name for spare in group.spares}:
        raise ObjectDamaged(f"{key}: is no part of the group that it names")
    if HEADER.size + group.size != start:
        raise ObjectDamaged(f"{key}: its size contradicts its group")
    return group


def read_column(sealed: SealedStore, group: Group, spare: Spare, at: int) -> bytes:
    """Column number `at` of a spare, as it is there. Raises as `Store.get_range`."""
    offset = HEADER.size + at * group.column
    return sealed.store.get_range(spare.key, offset, group.column_length(at))
