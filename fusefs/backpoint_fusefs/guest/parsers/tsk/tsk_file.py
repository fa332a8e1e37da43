"""One file as The Sleuth Kit knows it: its stat and where its content is.

Knows no folders. What the library says is not believed before `check_extents` has seen it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any, Final

import pytsk3

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    Extent,
    GuestDamaged,
    GuestUnsupported,
    Stat,
)

_SECOND: Final = 1_000_000_000
_SECTOR: Final = 512
_FORMATS: Final = {
    int(pytsk3.TSK_FS_META_TYPE_REG): stat.S_IFREG,
    int(pytsk3.TSK_FS_META_TYPE_DIR): stat.S_IFDIR,
    int(pytsk3.TSK_FS_META_TYPE_LNK): stat.S_IFLNK,
    int(pytsk3.TSK_FS_META_TYPE_FIFO): stat.S_IFIFO,
    int(pytsk3.TSK_FS_META_TYPE_CHR): stat.S_IFCHR,
    int(pytsk3.TSK_FS_META_TYPE_BLK): stat.S_IFBLK,
    int(pytsk3.TSK_FS_META_TYPE_SOCK): stat.S_IFSOCK,
}
_RUN_FILLER: Final = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_FILLER)
_RUN_SPARSE: Final = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE)
_RUN_ENCRYPTED: Final = int(pytsk3.TSK_FS_ATTR_RUN_FLAG_ENCRYPTED)
_NONRESIDENT: Final = int(pytsk3.TSK_FS_ATTR_NONRES)
_COMPRESSED: Final = int(pytsk3.TSK_FS_ATTR_COMP)
_ENCRYPTED: Final = int(pytsk3.TSK_FS_ATTR_ENC)


def file_stat(file: Any, number: int) -> Stat:
    meta = file.info.meta
    if meta is None or not int(meta.flags) & int(pytsk3.TSK_FS_META_FLAG_ALLOC):
        raise GuestDamaged(f"file {number} is not in use")
    file_format = _FORMATS.get(int(meta.type))
    if file_format is None:
        raise GuestDamaged(f"file {number} is of no known type")
    size = int(meta.size)
    if not 0 <= size < 1 << 62:
        raise GuestDamaged(f"file {number} has {size} bytes")
    return Stat(
        0,
        number,
        file_format | int(meta.mode) & 0o7777,
        max(int(meta.nlink), 1),
        int(meta.uid),
        int(meta.gid),
        size,
        -(-size // _SECTOR) * _SECTOR,
        int(meta.atime) * _SECOND + int(meta.atime_nano),
        int(meta.mtime) * _SECOND + int(meta.mtime_nano),
        int(meta.ctime) * _SECOND + int(meta.ctime_nano),
        0,
    )


def attributes_of(file: Any, kind: int) -> list[Any]:
    return [attribute for attribute in file if int(attribute.info.type) == kind]


def data_extents(attribute: Any, size: int, block: int) -> Iterator[Extent]:
    """attribute: the file's content. block: of the filesystem, in bytes."""
    flags = int(attribute.info.flags)
    if flags & _ENCRYPTED:
        raise GuestUnsupported("a file is encrypted")
    if not flags & _NONRESIDENT or flags & _COMPRESSED:
        if size:
            yield Extent(0, size, DECODED)
        return
    end = 0
    for run in attribute:
        offset, run_flags = int(run.offset) * block, int(run.flags)
        length = min(int(run.len) * block, size - offset)
        if length <= 0:
            break
        if run_flags & (_RUN_FILLER | _RUN_ENCRYPTED):
            raise GuestDamaged("a file's content is nowhere")
        yield Extent(offset, length, HOLE if run_flags & _RUN_SPARSE else int(run.addr) * block)
        end = offset + length
    if end != size:
        raise GuestDamaged(f"a file of {size} bytes has blocks for {end}")
