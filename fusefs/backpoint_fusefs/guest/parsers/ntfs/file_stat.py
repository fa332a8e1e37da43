"""What an NTFS file is to a Unix reader: type, mode, sizes, times, link's target.

Decides the modes: NTFS has none, so folders are 0755 and files 0644 of root, without the write bits
where Windows says read-only; what the Windows Subsystem for Linux recorded comes before that.
"""

from __future__ import annotations

import stat
import struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import GuestDamaged, Stat
from backpoint_fusefs.guest.parsers.ntfs.attribute import (
    DATA,
    EXTENDED,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    REPARSE_POINT,
    STANDARD_INFORMATION,
    Attribute,
)
from backpoint_fusefs.guest.parsers.ntfs.extended_attributes import (
    EA_MAX,
    LinuxMetadata,
    linux_metadata,
)
from backpoint_fusefs.guest.parsers.ntfs.interix import (
    INTERIX_MAX,
    SYSTEM,
    InterixFile,
    read_interix,
)
from backpoint_fusefs.guest.parsers.ntfs.mft import MasterFileTable
from backpoint_fusefs.guest.parsers.ntfs.ntfs_file import NtfsFile
from backpoint_fusefs.guest.parsers.ntfs.reparse_point import (
    REPARSE_MAX,
    ReparsePoint,
    read_reparse_point,
)

_STANDARD: Final = struct.Struct("<QQQQI")
_READ_ONLY: Final = 0x1
# 1601 to 1970, in the 100 ns of Windows.
_EPOCH: Final = 116_444_736_000_000_000
_I30: Final = "$I30".encode("utf-16-le")
_NO_REPARSE: Final = ReparsePoint()
_NO_LINUX: Final = LinuxMetadata()
_WRITE_BITS: Final = 0o222


class Nature(NamedTuple):
    """What a file really is; target: of a link."""

    format: int
    reparse: ReparsePoint
    target: bytes = b""
    rdev: int = 0


def file_stat(table: MasterFileTable, file: NtfsFile) -> Stat:
    standard = file.first(STANDARD_INFORMATION)
    if standard is None or standard.value is None or len(standard.value) < _STANDARD.size:
        raise GuestDamaged(f"file {file.number} has no standard information")
    _, modified, changed, accessed, attributes = _STANDARD.unpack_from(standard.value)
    linux = _linux(table, file)
    nature = file_nature(table, file)
    size, allocated = _sizes(file, nature)
    mode = nature.format | _permissions(nature.format, attributes, linux)
    return Stat(
        0,
        file.number,
        mode,
        1 if file.directory else file.names(),
        linux.uid or 0,
        linux.gid or 0,
        size,
        allocated,
        (accessed - _EPOCH) * 100,
        (modified - _EPOCH) * 100,
        (changed - _EPOCH) * 100,
        nature.rdev or (linux.rdev or 0 if _is_device(nature.format) else 0),
    )


def stream_stat(whole: Stat, stream: Attribute, number: int) -> Stat:
    """Of an alternate stream shown as a file; whole: of the file that has it."""
    mode = stat.S_IFREG | (whole.mode & 0o666)
    return whole._replace(
        tree=number, mode=mode, size=stream.size, allocated=_allocated(stream), rdev=0
    )


def file_nature(table: MasterFileTable, file: NtfsFile) -> Nature:
    point = file.first(REPARSE_POINT)
    if point is not None:
        reparse = read_reparse_point(table.value(file.segments(point), REPARSE_MAX))
        if reparse.format:
            return Nature(reparse.format, reparse, reparse.target)
        return Nature(stat.S_IFDIR if file.directory else stat.S_IFREG, reparse)
    if file.directory:
        return Nature(stat.S_IFDIR, _NO_REPARSE)
    if found := _interix(table, file):
        return Nature(found.format, _NO_REPARSE, found.target, found.rdev)
    return Nature(stat.S_IFREG, _NO_REPARSE)


def _interix(table: MasterFileTable, file: NtfsFile) -> InterixFile | None:
    standard, data = file.first(STANDARD_INFORMATION), file.first(DATA)
    if standard is None or standard.value is None or data is None:
        return None
    if not standard.value[32] & SYSTEM or not 8 < data.size <= INTERIX_MAX or data.flags:
        return None
    return read_interix(table.value(file.segments(data), INTERIX_MAX))


def _linux(table: MasterFileTable, file: NtfsFile) -> LinuxMetadata:
    found = file.first(EXTENDED)
    return linux_metadata(table.value(file.segments(found), EA_MAX)) if found else _NO_LINUX


def _permissions(file_format: int, attributes: int, linux: LinuxMetadata) -> int:
    if linux.mode is not None:
        return linux.mode & 0o7777
    if file_format == stat.S_IFLNK:
        return 0o777
    if file_format == stat.S_IFDIR:
        # Read-only is said of folders that have an icon of their own; it protects nothing.
        return 0o755
    return 0o644 & ~_WRITE_BITS if attributes & _READ_ONLY else 0o644


def _sizes(file: NtfsFile, nature: Nature) -> tuple[int, int]:
    if nature.format == stat.S_IFLNK:
        return len(nature.target), 0
    if nature.format == stat.S_IFDIR:
        index = file.first(INDEX_ALLOCATION, _I30) or file.first(INDEX_ROOT, _I30)
        return (index.size, _allocated(index)) if index else (0, 0)
    data = file.first(DATA)
    if nature.format != stat.S_IFREG or data is None:
        return 0, 0
    return data.size, _allocated(data)


def _allocated(attribute: Attribute) -> int:
    """Content within the record counts as a sector: with no block at all programs that copy sparse
    files take it for one hole."""
    return attribute.occupied if attribute.value is None else -(-attribute.size // 512) * 512


def _is_device(file_format: int) -> bool:
    return file_format in (stat.S_IFCHR, stat.S_IFBLK)
