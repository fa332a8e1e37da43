"""NTFS's mapping pairs: which clusters an attribute occupies, in order.

Format: "mapping pairs array" (Microsoft; ntfs-3g `runlist.c`): a byte of two nibbles, the sizes of
a length and of a signed distance from the last cluster; without distance the run is sparse.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged

SPARSE: Final = -1


class Run(NamedTuple):
    """Clusters [vcn, vcn + length) of an attribute; lcn: the first one's place, or SPARSE."""

    vcn: int
    length: int
    lcn: int


def decode_runs(pairs: bytes, vcn: int, end: int, clusters: int) -> list[Run]:
    """The runs of [vcn, end), which they must fill. clusters: of the volume."""
    runs = []
    lcn = at = 0
    while vcn < end:
        head = pairs[at] if at < len(pairs) else 0
        size, distance_size = head & 15, head >> 4
        pair_end = at + 1 + size + distance_size
        if not 0 < size <= 8 or distance_size > 8 or pair_end > len(pairs):
            raise GuestDamaged("an attribute's list of clusters is cut off")
        length = int.from_bytes(pairs[at + 1 : at + 1 + size], "little")
        if not 0 < length <= end - vcn:
            raise GuestDamaged(f"a run of {length} clusters in an attribute of {end}")
        if distance_size:
            lcn += int.from_bytes(pairs[at + 1 + size : pair_end], "little", signed=True)
            if not 0 <= lcn <= clusters - length:
                raise GuestDamaged(f"a file's cluster {lcn} is not on the volume")
        runs.append(Run(vcn, length, lcn if distance_size else SPARSE))
        vcn += length
        at = pair_end
    return runs
