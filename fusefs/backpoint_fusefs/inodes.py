"""Inode numbers: derived from what they stand for, so that they survive forgetting and restarts.

A number is 48 bits of who and 16 bits of what (its role): the same thing has the same number in
every mount of a repository, and a number tells where to look for its thing. Network file systems
keep such numbers for weeks. Knows no listing; whether a thing exists is for `tree.py`.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

# Prefix 0 of FIXED is 1, which the kernel demands for the root.
FIXED: Final = 0x0001
VM_FOLDER: Final = 0x0002
VM_LATEST: Final = 0x0003
DAY_FOLDER: Final = 0x0004
LIVE_NODE: Final = 0x0400
"""To 0x07ff: what is in live sessions (`live/mounted/live_inodes.py`)."""
LIVE_NODES: Final = 0x0400
GUEST_FILE: Final = 0x0800
"""To 0x0fff: files of guests, whose numbers have other bits (`guest/mounted/guest_inodes.py`)."""
GUEST_FILES: Final = 0x0800
DAY_LINK: Final = 0x1000
"""To 0x7fff: the newest point of a VM on a day, by the day's number modulo `DAY_LINKS`."""
DAY_LINKS: Final = 0x7000
"""78 years: two days of one VM share a number only if its points are that far apart."""
POINT: Final = 0x8000
"""To 0xffff: a point's folder (0x8000) and everything inside."""

POINT_FOLDER: Final = POINT
POINT_JSON: Final = POINT | 0x0001
GUEST_FOLDER: Final = POINT | 0x0002
PROOF_JSON: Final = POINT | 0x0003
PROOF_SCREEN: Final = POINT | 0x0004
DISK_DESCRIPTOR: Final = POINT | 0x1000
DISK_FLAT: Final = POINT | 0x2000
DISKS_MAX: Final = 0x1000
GUEST_EXTRA: Final = POINT | 0x3000
"""To 0xbfff: what `guest/` holds besides the guest's own files: explanations, empty folders."""
GUEST_EXTRAS: Final = 0x1000
CONFIG_FILE: Final = POINT | 0x4000
CONFIG_FILES_MAX: Final = 0x4000

_ROLE_BITS: Final = 16
_PREFIX_SIZE: Final = 6


class Number(NamedTuple):
    """An inode number taken apart."""

    prefix: int
    role: int

    @property
    def inode(self) -> int:
        """64 bits."""
        return self.prefix << _ROLE_BITS | self.role


def take_apart(inode: int) -> Number:
    """Undo `Number.inode`."""
    return Number(inode >> _ROLE_BITS, inode & (1 << _ROLE_BITS) - 1)


def point_prefix(point_id: bytes) -> int:
    """The first 48 bits of a point's id, which is random."""
    return int.from_bytes(point_id[:_PREFIX_SIZE], "big")


def vm_prefix(vm: str) -> int:
    """48 bits of a hash of the VM's name."""
    name = vm.encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, digest_size=_PREFIX_SIZE, person=b"backpoint vm").digest()
    return int.from_bytes(digest, "big")


def day_link_role(day: int) -> int:
    """The role of a VM's link in the folder of `day` (days since 1970)."""
    return DAY_LINK + day % DAY_LINKS


ROOT: Final = Number(0, FIXED).inode
VMS: Final = Number(1, FIXED).inode
BY_DATE: Final = Number(2, FIXED).inode
README: Final = Number(3, FIXED).inode
LIVE: Final = Number(4, FIXED).inode
