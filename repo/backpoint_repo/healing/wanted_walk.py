"""Walks the points' maps for what no good copy holds. Good is a copy in a pack that is there and in
no trash, and that is not marked as damaged.

A map node shared by several points is looked at once. What lies under a node that cannot be read is
unknown until the node has been healed: then walk again. Reads no chunk: what is rotten and was
never read is for check and scrub to find and mark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backpoint_repo.disk_map import Geometry
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import (
    BLOCK_SIZE,
    FANOUT,
    HOLE,
    ID_SIZE,
    LEAF_SIZE,
    MAX_DISK_SIZE,
    Kind,
)
from backpoint_repo.healing.wanted import CHUNK, PLACE, Keys, Places, StoredImage, Wanted, keys_of
from backpoint_repo.index import Index, ids_of
from backpoint_repo.map_node import decode_inner, decode_leaf
from backpoint_repo.point import FILE_CHUNK, ConfigFile, Disk, Point


@dataclass(frozen=True)
class _Spot:
    """Map node number `index` of a level of one disk."""

    image: StoredImage
    level: int
    index: int

    @property
    def offset(self) -> int:
        """Where the bytes under it begin."""
        return self.index * self._span

    @property
    def length(self) -> int:
        """Bytes under it, as far as the disk goes."""
        return min(self._span, self.image.size - self.offset)

    @property
    def _span(self) -> int:
        return LEAF_SIZE * int(FANOUT**self.level)


@dataclass
class Rot:
    """What a walk met besides. rotten: ids of map nodes that no mark spoke of and none of whose
    copies opens. unreadable: what could not be looked at now, for the user."""

    rotten: list[bytes] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class WantedWalk:
    """For one thread. The index has been told of trash, damage marks and missing packs."""

    def __init__(self, index: Index, load_node: Callable[[bytes], bytes]) -> None:
        self._index = index
        self._load = load_node
        self._visited: set[bytes] = set()
        self._images: dict[StoredImage, int] = {}
        self._keys: list[Keys] = []
        self._places: list[Places] = []
        self.rot = Rot()

    def add(self, point: Point) -> None:
        """Look at a point's disks and files."""
        for disk in point.disks:
            self._add_disk(StoredImage(point.vm, disk.key, disk.size), disk)
        for file in point.files:
            self._add_file(StoredImage(point.vm, file.name, file.size), file)

    def wanted(self) -> Wanted:
        """What all the points added so far want."""
        keys = np.concatenate([*self._keys, keys_of(Kind.DATA_PACK, ids_of([]))])
        places = np.concatenate([*self._places, np.zeros(0, PLACE)])
        return Wanted(list(self._images), keys, places)

    def _add_disk(self, image: StoredImage, disk: Disk) -> None:
        geometry = Geometry(disk.size)
        # An impossible disk was never content: nothing can heal it.
        if 0 < disk.size <= MAX_DISK_SIZE and len(disk.root) == ID_SIZE:
            self._walk(geometry, disk.root, _Spot(image, geometry.height, 0))

    def _walk(self, geometry: Geometry, node_id: bytes, spot: _Spot) -> None:
        if node_id == HOLE or node_id in self._visited:
            return
        self._visited.add(node_id)
        plain = self._look_at(node_id, spot)
        if plain is None:
            return
        try:
            if spot.level == 0:
                self._add_leaf(plain, geometry.leaf_blocks(spot.index), spot)
                return
            ids = decode_inner(plain, spot.level, geometry.children(spot.level, spot.index)).ids
        except ObjectDamaged:
            return  # it is what was stored, and contradicts itself: nothing can heal that
        for child in range(len(ids)):
            below = _Spot(spot.image, spot.level - 1, spot.index * FANOUT + child)
            self._walk(geometry, ids[child].tobytes(), below)

    def _look_at(self, node_id: bytes, spot: _Spot) -> bytes | None:
        """A node's plain bytes where it can be read; it is wanted where no good copy holds it."""
        good = bool(self._index.known(ids_of([node_id]))[0])
        plain = None
        try:
            plain = self._load(node_id)
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            if good:
                self.rot.rotten.append(node_id)
        except StoreUnavailable as error:
            self.rot.unreadable.append(str(error))
            return None
        if not good or plain is None:
            rows = [(node_id, spot.offset, spot.length)]
            self._want(Kind.NODE_PACK, spot.image, spot.level, rows)
        return plain

    def _add_leaf(self, plain: bytes, blocks: int, spot: _Spot) -> None:
        leaf = decode_leaf(plain, blocks)
        rows = []
        for at in np.flatnonzero(~self._index.known(leaf.ids) & ~leaf.holes).tolist():
            start, end, content_id = leaf.entry_at(at)
            offset = spot.offset + start * BLOCK_SIZE
            rows.append((content_id, offset, (end - start) * BLOCK_SIZE))
        self._want(Kind.DATA_PACK, spot.image, CHUNK, rows)

    def _add_file(self, image: StoredImage, file: ConfigFile) -> None:
        if not file.chunks or -(-file.size // FILE_CHUNK) != len(file.chunks):
            return
        lost = np.flatnonzero(~self._index.known(ids_of(list(file.chunks)))).tolist()
        rows = [(file.chunks[at], at * FILE_CHUNK, file.stored_length(at)) for at in lost]
        self._want(Kind.DATA_PACK, image, CHUNK, rows)

    def _want(
        self, kind: Kind, image: StoredImage, level: int, rows: list[tuple[bytes, int, int]]
    ) -> None:
        """rows: id, offset, length; bytes of the image."""
        if not rows:
            return
        ids, offsets, lengths = zip(*rows, strict=True)
        places = np.zeros(len(rows), PLACE)
        places["image"] = self._images.setdefault(image, len(self._images))
        places["level"], places["offset"], places["length"] = level, offsets, lengths
        self._keys.append(keys_of(kind, ids_of(list(ids))))
        self._places.append(places)
