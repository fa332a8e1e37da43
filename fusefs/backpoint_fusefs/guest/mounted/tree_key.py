"""What a tree of guest files is: one subvolume of one filesystem, seen in one place of one point.

Its short number is drawn from it and may be another tree's as well; its generation tells them
apart, so that a number kept for long never leads to another tree's file.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

SLOT_BITS: Final = 20
SLOTS: Final = 1 << SLOT_BITS


class TreeKey(NamedTuple):
    """place: the volume's name, or `root/` and the number of a mount in the guest's own view."""

    point_id: bytes
    place: str
    tree: int

    @property
    def preferred_slot(self) -> int:
        """Where nobody else has it."""
        return int.from_bytes(self._digest()[:8], "big") % SLOTS

    @property
    def generation(self) -> int:
        """31 bits, not 0: part of every file handle."""
        return int.from_bytes(self._digest()[8:], "big") % ((1 << 31) - 1) + 1

    def _digest(self) -> bytes:
        place = self.place.encode("utf-8", "surrogatepass")
        text = b"%s\0%d\0%s" % (self.point_id, self.tree, place)
        return hashlib.blake2b(text, digest_size=16, person=b"backpoint tree").digest()
