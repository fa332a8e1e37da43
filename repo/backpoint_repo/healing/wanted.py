"""What heals a repository: content that some point needs and no good copy holds, and where on which
disk it lies.

Compact arrays: 33 bytes for each id that is wanted and 29 for each place, three times that while
they are sorted. An entry of a stored map makes one place however many points share it. Knows
neither how it was found nor where it could come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.format import ID_SIZE, Kind
from backpoint_repo.map_node import Ids

CHUNK: Final = -1
"""The level of a place that is a chunk's; map nodes have theirs, 0 for a leaf."""
BATCH: Final = 1 << 16
"""Ids dealt with at a time where each needs objects of Python."""

PLACE: Final = np.dtype(
    [("image", "<u4"), ("level", "i1"), ("offset", "<u8"), ("length", "<u8"), ("number", "<i8")]
)
"""Where wanted content lies: number of the image, level, bytes of the image, number of the id."""
Places = NDArray[np.void]
Keys = NDArray[np.bytes_]


@dataclass(frozen=True)
class StoredImage:
    """A disk, or a file, of a VM, as its points know it. key: a disk's key, or a file's name."""

    vm: str
    key: str
    size: int


class Wanted:
    """Ids by number. For one thread. `images`: what the places' image numbers mean."""

    def __init__(self, images: Sequence[StoredImage], keys: Keys, places: Places) -> None:
        """keys: `keys_of` each place's id; the places' own numbers are filled in here."""
        self.images = tuple(images)
        self._keys, numbers = np.unique(keys, return_inverse=True)
        places["number"] = numbers
        self._places = sorted_once(places, ("image", "offset", "level", "length", "number"))
        self._open = np.ones(len(self._keys), np.bool_)

    def __len__(self) -> int:
        """How many are still wanted."""
        return int(self._open.sum())

    @property
    def nodes(self) -> int:
        """How many map nodes are still wanted."""
        return int(self._open[self._kinds() == Kind.NODE_PACK].sum())

    def is_open(self, number: int) -> bool:
        """Whether it is still wanted."""
        return bool(self._open[number])

    def close(self, number: int) -> None:
        """It has a good copy again."""
        self._open[number] = False

    def key(self, number: int) -> tuple[Kind, bytes]:
        """What it is: content of data packs or of node packs, and its id."""
        # An array's item loses zeros at its end; here the kind is the last byte.
        row = bytes(self._keys[number])
        return Kind(row[ID_SIZE]), row[:ID_SIZE]

    def find(self, kind: Kind, ids: Ids) -> list[int]:
        """Of each id its number where it is still wanted, else -1."""
        keys = keys_of(kind, ids)
        at = np.searchsorted(self._keys, keys)
        at[at == len(self._keys)] = 0
        hit = (self._keys[at] == keys) & self._open[at] if len(self._keys) else at < 0
        return [int(number) for number in np.where(hit, at, -1)]

    def batches(self) -> Iterator[list[int]]:
        """Numbers still wanted, in the order of the disks, so that neighbours in packs come
        together."""
        numbers, first = np.unique(self._places["number"], return_index=True)
        ordered = numbers[np.argsort(first, kind="stable")]
        for start in range(0, len(ordered), BATCH):
            part = ordered[start : start + BATCH]
            yield part[self._open[part]].tolist()

    def places(self, *, levels: tuple[int, int], images: Sequence[int] | None = None) -> Places:
        """Places of what is still wanted, by image and offset. levels: from, and up to.

        images: only of these; by default of all.
        """
        level = self._places["level"]
        chosen = self._open[self._places["number"]] & (level >= levels[0]) & (level <= levels[1])
        if images is not None:
            chosen &= np.isin(self._places["image"], np.array(images, np.uint32))
        found: Places = self._places[chosen]
        return found

    def _kinds(self) -> NDArray[np.uint8]:
        rows = self._keys.view(np.uint8).reshape(-1, ID_SIZE + 1)
        return rows[:, ID_SIZE]


def sorted_once(rows: Places, fields: Sequence[str]) -> Places:
    """Rows in the order of these fields, those alike in all of them once.

    Column by column: numpy compares whole records a hundred times slower.
    """
    found: Places = rows[np.lexsort([rows[field] for field in reversed(fields)])]
    fresh = np.ones(len(found), np.bool_)
    fresh[1:] = False
    for field in fields:
        fresh[1:] |= found[field][1:] != found[field][:-1]
    return found[fresh]


def keys_of(kind: Kind, ids: Ids) -> Keys:
    """(m,) what `Wanted` sorts by: id and kind, so that no chunk is taken for a node."""
    kinds = np.full((len(ids), 1), int(kind), np.uint8)
    rows = np.ascontiguousarray(np.concatenate((ids, kinds), axis=1))
    return rows.view(f"S{ID_SIZE + 1}").reshape(-1)
