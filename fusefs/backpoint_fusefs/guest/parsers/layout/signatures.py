"""Which filesystem, container or other thing a volume is.

A table of magic numbers and who is asked when one is there; the first who agrees wins. The order is
by how hard it is to leave the magic number behind by accident: what lies in the first sector is
overwritten by whatever comes after it. One read of 68 KiB, and what a label costs; the end
of a volume is read only where there is a reason to look for a RAID there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from backpoint_fusefs.guest.parsers.layout.container_signatures import (
    bcache,
    bcachefs,
    drbd,
    luks,
    lvm2,
    md,
    vmfs,
    zfs,
)
from backpoint_fusefs.guest.parsers.layout.disc_signatures import apfs, hfs, hfsplus, iso9660
from backpoint_fusefs.guest.parsers.layout.fat_signatures import exfat, fat
from backpoint_fusefs.guest.parsers.layout.linux_signatures import (
    btrfs,
    ext,
    f2fs,
    jfs,
    reiserfs,
    swap,
    xfs,
)
from backpoint_fusefs.guest.parsers.layout.md_member import find_member_at_end
from backpoint_fusefs.guest.parsers.layout.probe import Probe
from backpoint_fusefs.guest.parsers.layout.signature import Signature
from backpoint_fusefs.guest.parsers.layout.windows_signatures import (
    bitlocker,
    bitlocker_to_go,
    ntfs,
    refs,
)


class _Magic(NamedTuple):
    offset: int
    magic: bytes
    ask: Callable[[Probe], Signature | None]


def _only(kind: str) -> Callable[[Probe], Signature]:
    return lambda _: Signature(kind)


_MD = bytes.fromhex("fc4e2ba9")
_PAGES = (4096, 8192, 16384, 32768, 65536)
_SWAP_MAGICS = (
    b"SWAPSPACE2",
    b"SWAP-SPACE",
    b"S1SUSPEND",
    b"S2SUSPEND",
    b"ULSUSPEND",
    b"LINHIB0001",
)

_IN_FIRST_SECTOR: Final = (
    _Magic(0, b"LUKS\xba\xbe", luks),
    _Magic(3, b"-FVE-FS-", bitlocker),
    _Magic(3, b"MSWIN4.1", bitlocker_to_go),
    _Magic(3, b"NTFS    ", ntfs),
    _Magic(3, b"EXFAT   ", exfat),
    _Magic(3, b"ReFS\0\0\0\0", refs),
    _Magic(0, b"XFSB", xfs),
    _Magic(32, b"NXSB", apfs),
    _Magic(0, b"hsqs", _only("squashfs")),
)
_BEHIND_IT: Final = (
    _Magic(0, _MD, md),
    _Magic(4096, _MD, md),
    *(_Magic(sector * 512, b"LABELONE", lvm2) for sector in range(4)),
    _Magic(4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81"), bcache),
    _Magic(4120, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef"), bcachefs),
    _Magic(1024 + 56, b"\x53\xef", ext),
    _Magic(510, b"\x55\xaa", fat),
    _Magic(54, b"FAT", fat),
    _Magic(82, b"FAT32", fat),
    _Magic(1024, b"H+", hfsplus),
    _Magic(1024, b"HX", hfsplus),
    _Magic(1024, b"BD", hfs),
    _Magic(1024, bytes.fromhex("1020f5f2"), f2fs),
    _Magic(1024, bytes.fromhex("e2e1f5e0"), _only("erofs")),
    _Magic(1024, b"\2\0\0\0\0\0\x34\x34", _only("nilfs2")),
    _Magic(32769, b"CD001", iso9660),
    _Magic(65600, b"_BHRfS_M", btrfs),
    *(_Magic(page - 10, magic, swap) for page in _PAGES for magic in _SWAP_MAGICS),
    _Magic(32768, b"JFS1", jfs),
    _Magic(65536 + 52, b"ReIsEr", reiserfs),
    _Magic(8192 + 52, b"ReIsEr", reiserfs),
    *(_Magic(1024 << bits, b"OCFSV2", _only("ocfs2")) for bits in range(3)),
    _Magic(65536, bytes.fromhex("01161970"), _only("gfs2")),
    _Magic(8192 + 1372, bytes.fromhex("54190100"), _only("ufs")),
    *(_Magic(at + 1372, bytes.fromhex("19015419"), _only("ufs")) for at in (8192, 65536)),
    _Magic(16384, b"\x01", zfs),
)


def identify(probe: Probe, *, expect_raid: bool = False, look_far: bool = True) -> Signature:
    """What the volume holds; an empty kind where nothing is known.

    expect_raid: look for RAID metadata at the end whatever is found at the beginning. look_far:
    read further where nothing is found at the beginning.
    """
    found = boot_signature(probe) or _first(probe, _BEHIND_IT) or Signature()
    if not found.kind and not look_far:
        return found
    # A RAID with its metadata at the end shows the beginning of its content: of a mirror, all of
    # it, but of the others a part only, and then the filesystem is larger than the volume.
    if expect_raid or not found.kind or found.size > probe.size:
        member = find_member_at_end(probe)
        if member is not None and (expect_raid or member.level != 1 or not found.kind):
            return Signature("md", member.name, member.set_uuid)
    if not found.kind:
        return drbd(probe) or vmfs(probe) or found
    return found


def boot_signature(probe: Probe) -> Signature | None:
    """What occupies the first sector, so that no partition table can be there."""
    return _first(probe, _IN_FIRST_SECTOR)


def _first(probe: Probe, table: tuple[_Magic, ...]) -> Signature | None:
    for offset, magic, ask in table:
        if probe.head.startswith(magic, offset):
            found = ask(probe)
            if found is not None:
                return found
    return None
