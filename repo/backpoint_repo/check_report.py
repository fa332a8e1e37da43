"""What a check found, for a person and for a script. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backpoint_repo.scrubbing.readings import PackAges

_MENDED_BY: Final = {
    "index": "backpoint rebuild-index",
    "catalog": "backpoint rebuild-index",
    "damage": "backpoint rebuild-index",
    "readings": "backpoint scrub",
    "parity": "backpoint parity --verify",
}
"""Folder -> what clears up a damaged object in it: all it says can be found out again."""

_BY_HAND: Final = {
    "points": "put them back from a copy of the repository; without one these points are lost: "
    "delete the objects, so that `backpoint collect` can go on",
    "trash": "put them back from a copy of the repository; without one delete them while nobody is "
    "at work (see `backpoint leases`): nothing can be backed up or collected before",
    "policy": "put them back from a copy of the repository, or delete them and say anew what holds "
    "(`backpoint protect`, `backpoint parity --set`)",
    "leases": "`backpoint leases --end SESSION` ends such a session",
    "notes": "what they said of a point is lost: delete them",
}
"""Folder -> what people do about a damaged object in it, where no command does."""


@dataclass(frozen=True)
class DamagedObject:
    """An object of the store that is missing or wrong. key: its store key."""

    key: str
    problem: str

    @property
    def mended_by(self) -> str:
        """The command that clears this up at no loss of data; empty where there is none."""
        return _MENDED_BY.get(self.folder, "")

    @property
    def by_hand(self) -> str:
        """What to do where no command clears it up; empty where nothing can be said."""
        return _BY_HAND.get(self.folder, "")

    @property
    def folder(self) -> str:
        """Of its key."""
        return self.key.partition("/")[0]


@dataclass(frozen=True)
class HurtRange:
    """Bytes [offset, offset + length) of a stored disk (or file) that cannot be read right.

    point_id: 16 bytes; disk: its key; chunk: the first chunk or map node concerned, hexadecimal.
    """

    vm: str
    point_id: bytes
    time: float
    disk: str
    offset: int
    length: int
    chunk: str
    problem: str


@dataclass(frozen=True)
class CheckReport:
    """points, packs, chunks: how many were looked at; read_bytes: of packs read in full.

    unreadable: what could not be looked at now, which is neither good nor damaged.
    marked: copies newly marked as damaged, so that the next backup stores them anew.
    in_trash: packs that wait there for a collector. notes: what is odd and harms nobody.
    """

    points: int = 0
    packs: int = 0
    chunks: int = 0
    read_bytes: int = 0
    damaged: tuple[DamagedObject, ...] = ()
    hurt: tuple[HurtRange, ...] = ()
    unreadable: tuple[str, ...] = ()
    marked: int = 0
    in_trash: int = 0
    ages: PackAges = field(default_factory=PackAges)
    notes: tuple[str, ...] = field(default=())

    @property
    def clean(self) -> bool:
        """Everything was looked at, and all of it was right."""
        return not (self.damaged or self.hurt or self.unreadable)
