"""What is known but holds no files that we can show: a sentence for each kind.

Decides the words a user reads in place of files. A kind that is not here has a parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

UNREAD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "holds no filesystem that is known",
        # pytsk3 binds no pools, and APFS's volumes are only found through one.
        "apfs": "an APFS container, whose volumes are not read",
        "bcache": "a bcache device: a filesystem behind a cache, which is not read",
        "bcachefs": "a bcachefs filesystem, which is not read",
        "bios-boot": "a BIOS boot partition: it holds no files",
        "bitlocker": "encrypted with BitLocker: its files cannot be read without the key",
        "bsd": "a BSD slice with partitions of its own, which are not read",
        "drbd": "a DRBD device whose filesystem is not known",
        "erofs": "an EROFS filesystem, which is not read",
        "extended": "an extended partition: it only holds the logical partitions",
        "f2fs": "an F2FS filesystem, which is not read",
        "gfs2": "a GFS2 cluster filesystem, which is not read",
        "hfs": "an old HFS filesystem (without Plus), which is not read",
        "jbd": "the journal of a filesystem elsewhere: it holds no files",
        "jfs": "a JFS filesystem, which is not read",
        "ldm": "part of a Windows dynamic disk (LDM), whose volumes are not read",
        "ldm-metadata": "the table of a Windows dynamic disk (LDM): it holds no files",
        "luks": "encrypted with LUKS: its files cannot be read without the key",
        "lvm2": "an LVM2 physical volume whose volume group cannot be read",
        "md": "a member of a Linux software RAID (md), which cannot be read by itself",
        "ms-reserved": "a Microsoft reserved partition: it holds no files",
        "nilfs2": "a NILFS2 filesystem, which is not read",
        "ocfs2": "an OCFS2 cluster filesystem, which is not read",
        "prep": "a PReP boot partition: it holds no files",
        "refs": "a ReFS filesystem, which is not read",
        "reiserfs": "a ReiserFS filesystem, which is not read",
        "squashfs": "a SquashFS filesystem, which is not read",
        "storage-spaces": "part of a Windows storage pool (Storage Spaces), which is not read",
        "swap": "a swap area: it holds no files",
        "ufs": "a UFS filesystem, which is not read",
        "vmfs": "a VMFS datastore, which is not read",
        "vmkcore": "a VMware diagnostic partition: it holds no files",
        "zfs": "a member of a ZFS pool, which is not read",
    }
)
