"""What of a disk's map has to be copied: walks the source's tree beside the one to stand on.

Whatever hangs at the same place in both is passed over: the destination's earlier point is whole
and pinned. Nothing else is: a node that the destination knows may be the orphan of a session that
died before its chunks were there. Decides what is asked for, not how it is fetched or stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backpoint_repo.copying.verbatim_fetch import Fetched, Wanted
from backpoint_repo.disk_ingest import Advance
from backpoint_repo.disk_map import DiskMap, Geometry
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, UnknownFormat
from backpoint_repo.format import BLOCK_SIZE, FANOUT, HOLE, ID_SIZE
from backpoint_repo.map_node import Ids, decode_inner, decode_leaf

FetchNodes = Callable[[Iterable[Wanted]], Iterator[Fetched]]


class Keeper(Protocol):
    """Who stores what the destination lacks."""

    def keep_node(self, node: Fetched) -> None:
        """A node of the map; called once for each of them, parents first."""

    def lacks(self, ids: Ids) -> list[int]:
        """Which of these chunks are to be copied; they count as copied from now on."""


class MapWalk:
    """One disk. For one thread.

    base: the destination's map that shares most with it, of the same size; None: nothing is shared.
    advance: called with bytes of the disk that were dealt with; they add up to its size.
    """

    def __init__(
        self,
        geometry: Geometry,
        base: DiskMap | None,
        fetch: FetchNodes,
        keeper: Keeper,
        advance: Advance,
    ) -> None:
        self._geometry = geometry
        self._base = base
        self._fetch = fetch
        self._keeper = keeper
        self._advance = advance
        self._seen: set[tuple[bytes, int]] = set()
        """Inner nodes, and how much of the disk is under each: a map may name one in every place it
        has."""

    def wanted(self, root: bytes) -> Iterator[Wanted]:
        """Chunks that are to be copied, in disk order. Raises what fetching nodes raises, and
        ObjectDamaged for a map that contradicts the disk's size."""
        if not self._geometry.leaves:
            return
        ids = np.frombuffer(root, np.uint8).reshape(1, ID_SIZE)
        base = np.frombuffer(self._base.root, np.uint8).reshape(1, ID_SIZE) if self._base else None
        yield from self._under(ids, self._geometry.height, 0, base)

    def _under(self, ids: Ids, level: int, first: int, base: Ids | None) -> Iterator[Wanted]:
        """Below nodes number `first` and following of a level. base: those of the other map at the
        same places, as far as they are known."""
        places = self._fresh(ids, level, first, base)
        asked = [Wanted(node_id) for node_id in places]
        for node in self._fetch(asked):
            self._keeper.keep_node(node)
            for at in places[node.content_id]:
                number = first + at
                if level == 0:
                    yield from self._in_leaf(node.plain, number)
                else:
                    beside = self._beside(base, at, level, number)
                    yield from self._in_inner(node.plain, level, number, beside)

    def _fresh(self, ids: Ids, level: int, first: int, base: Ids | None) -> dict[bytes, list[int]]:
        """Nodes to walk, each with the rows at which it hangs; rows with as much of the disk under
        them are the same, so the first stands for all."""
        shared: NDArray[np.bool_] = (ids == 0).all(axis=1)
        if base is not None:
            shared[: len(base)] |= (ids[: len(base)] == base[: len(ids)]).all(axis=1)
        places: dict[bytes, list[int]] = {}
        met: set[tuple[bytes, int]] = set()
        for at in range(len(ids)):
            reach = self._geometry.reach(level, first + at)
            fits = ids[at].tobytes(), reach
            known = self._seen if level else met
            if shared[at] or fits in known:
                self._advance(reach)
                continue
            known.add(fits)
            places.setdefault(fits[0], []).append(at)
        return places

    def _in_inner(
        self, plain: bytes, level: int, number: int, base: Ids | None
    ) -> Iterator[Wanted]:
        ids = decode_inner(plain, level, self._geometry.children(level, number)).ids
        yield from self._under(ids, level - 1, number * FANOUT, base)

    def _in_leaf(self, plain: bytes, number: int) -> Iterator[Wanted]:
        leaf = decode_leaf(plain, self._geometry.leaf_blocks(number))
        lengths = leaf.lengths
        for at in self._keeper.lacks(leaf.ids):
            yield Wanted(leaf.ids[at].tobytes(), int(lengths[at]) * BLOCK_SIZE)
        self._advance(self._geometry.reach(0, number))

    def _beside(self, base: Ids | None, at: int, level: int, number: int) -> Ids | None:
        """The children of the other map's node at this place. What cannot be read is not shared."""
        node_id = HOLE if base is None else base[at].tobytes()
        if self._base is None or node_id == HOLE:
            return None
        try:
            return self._base.inner(node_id, level, number).ids
        except (ObjectMissing, ObjectDamaged, UnknownFormat):
            return None
