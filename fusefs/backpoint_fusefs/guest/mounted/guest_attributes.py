"""Guest files as the kernel sees them: the guest's own stat, as it is.

The number is ours; everything else is the guest's word. Device nodes are shown and can do nothing,
because the mount is made with `nodev` and `nosuid`.
"""

from __future__ import annotations

import stat

import pyfuse3

from backpoint_fusefs.attributes import LASTING_TIMEOUT_S
from backpoint_fusefs.guest.filesystem import Stat

_BLOCK = 512
_MODE_OF_UNREADABLE = stat.S_IFREG


def guest_attributes(inode: int, generation: int, found: Stat) -> pyfuse3.EntryAttributes:
    """inode: its number in the mount. generation: of the tree it is in."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = generation
    entry.entry_timeout = entry.attr_timeout = LASTING_TIMEOUT_S
    entry.st_mode = pyfuse3.ModeT(found.mode)
    entry.st_nlink = found.nlink
    entry.st_uid, entry.st_gid = found.uid, found.gid
    entry.st_rdev = found.rdev
    entry.st_size = found.size
    entry.st_blksize = 1 << 20
    entry.st_blocks = -(-found.allocated // _BLOCK)
    entry.st_atime_ns = found.atime_ns
    entry.st_mtime_ns = found.mtime_ns
    entry.st_ctime_ns = found.ctime_ns
    return entry


def unreadable_attributes(inode: int, generation: int) -> pyfuse3.EntryAttributes:
    """Of a file that is there and cannot be read: its name is shown, and asking again is an error.

    Not kept by the kernel, so that whoever asks gets the error.
    """
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(inode)
    entry.generation = generation
    entry.entry_timeout = entry.attr_timeout = 0
    entry.st_mode = pyfuse3.ModeT(_MODE_OF_UNREADABLE)
    entry.st_nlink = 1
    return entry
