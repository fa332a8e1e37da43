"""A parity group: which packs it covers, which spare objects belong to it, and digests of both.

Packs are seen as rows of columns (1 MiB), the shorter ones as if zeros followed; each column of the
group is a code word of its own. So as many bad columns as there are spares can be mended at every
place, wherever others are bad. Decides what a group's record says and which one is impossible. It
may be forged: whoever uses it compares what comes out with the pack's own directory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from blake3 import blake3

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import DIGEST_SIZE, HEADER, PACK_TRAILER, Kind, object_key
from backpoint_repo.index_segment import PACK_NAME_SIZE, PackRef
from backpoint_repo.policy import DATA_MAX, SPARE_MAX
from backpoint_repo.record import Record, encode_record
from backpoint_repo.store.contract import Piece

COLUMN_SIZE: Final = 1 << 20
"""Bytes: what is read of each pack at once, and the unit in which rot is located."""
COLUMN_SIZE_MAX: Final = 16 << 20
_COLUMN_SIZE_MIN: Final = 512
MEMBER_SIZE_MAX: Final = 64 << 20
"""Bytes of a pack. Writers close theirs at half of it; a rebuilt one is held in memory."""
_MEMBER_SIZE_MIN: Final = HEADER.size + PACK_TRAILER.size
SPARE_NAME_SIZE: Final = 16


@dataclass(frozen=True)
class Member:
    """A pack that is covered. size: bytes. digests: 16 bytes for each of its columns."""

    pack: PackRef
    size: int
    digests: bytes


@dataclass(frozen=True)
class Spare:
    """A spare object: its 16-byte random name, and 16 bytes for each column of the group."""

    name: bytes
    digests: bytes

    @property
    def key(self) -> str:
        """Where it is stored."""
        return object_key(Kind.PARITY, self.name.hex())


@dataclass(frozen=True)
class Group:
    """column: bytes of a column, but for the last one. Members and spares are in code order."""

    column: int
    members: tuple[Member, ...]
    spares: tuple[Spare, ...]

    @cached_property
    def size(self) -> int:
        """Bytes of code: the largest member, and the body of every spare."""
        return max(member.size for member in self.members)

    @cached_property
    def packs(self) -> frozenset[PackRef]:
        """All members."""
        return frozenset(member.pack for member in self.members)

    @property
    def title(self) -> str:
        """For people."""
        return f"parity group {self.spares[0].name.hex()[:8]}"

    def column_length(self, at: int) -> int:
        """Bytes of the group's column number `at`."""
        return min(self.column, self.size - at * self.column)

    def encode(self) -> bytes:
        """The plain record, the same in every spare."""
        members = [[int(m.pack.kind), m.pack.name, m.size, m.digests] for m in self.members]
        spares = [[spare.name, spare.digests] for spare in self.spares]
        return encode_record({"column": self.column, "members": members, "spares": spares})

    @classmethod
    def decode(cls, payload: bytes, what: str) -> Group:
        """Raises ObjectDamaged for a group that cannot be. what: the object that says it."""
        record = Record.decode(payload, what)
        column = record.natural("column")
        members = tuple(_member_of(row, what) for row in record.items("members", list))
        spares = tuple(_spare_of(row, what) for row in record.items("spares", list))
        if not _COLUMN_SIZE_MIN <= column <= COLUMN_SIZE_MAX:
            raise ObjectDamaged(f"{what}: has columns of {column} bytes")
        if not (1 <= len(members) <= DATA_MAX and 1 <= len(spares) <= SPARE_MAX):
            raise ObjectDamaged(f"{what}: a group of {len(members)} packs and {len(spares)} spares")
        group = cls(column, members, spares)
        if len(group.packs) != len(members) or len({spare.name for spare in spares}) != len(spares):
            raise ObjectDamaged(f"{what}: names a pack or a spare twice")
        digested = [(member.size, member.digests) for member in members]
        digested += [(group.size, spare.digests) for spare in spares]
        if any(
            len(digests) != DIGEST_SIZE * columns_of(size, column) for size, digests in digested
        ):
            raise ObjectDamaged(f"{what}: has more or fewer digests than columns")
        return group


def columns_of(size: int, column: int) -> int:
    """How many columns so many bytes have."""
    return -(-size // column)


def column_digest(data: Piece) -> bytes:
    """Of a column as it lies in its object, without zeros behind the object's end."""
    return blake3(data).digest(DIGEST_SIZE)


def digest_at(digests: bytes, at: int) -> bytes:
    """The digest of column number `at`."""
    return digests[at * DIGEST_SIZE : (at + 1) * DIGEST_SIZE]


def column_ranges(size: int, column: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of each column of so many bytes."""
    for offset in range(0, size, column):
        yield offset, min(column, size - offset)


def _member_of(row: list[Any], what: str) -> Member:
    if list(map(type, row[:4])) != [int, bytes, int, bytes]:
        raise ObjectDamaged(f"{what}: a member has the wrong shape")
    kind, name, size, digests = row[:4]
    if kind not in (Kind.DATA_PACK, Kind.NODE_PACK) or len(name) != PACK_NAME_SIZE:
        raise ObjectDamaged(f"{what}: covers something that is no pack")
    if not _MEMBER_SIZE_MIN <= size <= MEMBER_SIZE_MAX:
        raise ObjectDamaged(f"{what}: covers a pack of {size} bytes")
    return Member(PackRef(Kind(kind), name), size, digests)


def _spare_of(row: list[Any], what: str) -> Spare:
    if list(map(type, row[:2])) != [bytes, bytes] or len(row[0]) != SPARE_NAME_SIZE:
        raise ObjectDamaged(f"{what}: a spare has the wrong shape")
    return Spare(row[0], row[1])
