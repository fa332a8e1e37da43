"""Whether an NTFS volume was left in order, or its log holds what the tables do not show.

The log is not replayed. Formats: $VOLUME_INFORMATION, restart pages (ntfs-3g `logfile.h`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from backpoint_fusefs.guest.parsers.ntfs.attribute import VOLUME_INFORMATION
from backpoint_fusefs.guest.parsers.ntfs.fixups import repaired
from backpoint_fusefs.guest.parsers.ntfs.ntfs_file import NtfsFile

LOG_RECORD: Final = 2
VOLUME_RECORD: Final = 3

_DIRTY: Final = 0x0001
_MAGICS: Final = (b"RSTR", b"CHKD")
_PAGE_SIZES: Final = tuple(1 << bits for bits in range(9, 17))
# Of a restart area: the log's position, the first client in use, flags.
_AREA: Final = struct.Struct("<Q4xHH")
_NO_CLIENT: Final = 0xFFFF
_CLEAN: Final = 0x0002

UNREPLAYED: Final = (
    "the volume was in use: NTFS's log holds changes that are not replayed here, and some files "
    "may be as they were a few seconds earlier"
)
MARKED_DIRTY: Final = "Windows marked the volume as damaged or not unmounted; it was not checked"


def recovery_note(volume: NtfsFile, log_size: int, read_log: Callable[[int, int], bytes]) -> str:
    """read_log: (offset, length) of $LogFile's content, within its size."""
    if not _log_is_clean(log_size, read_log):
        return UNREPLAYED
    information = volume.first(VOLUME_INFORMATION)
    if information and information.value and len(information.value) >= 12:
        flags = int.from_bytes(information.value[10:12], "little")
        return MARKED_DIRTY if flags & _DIRTY else ""
    return ""


def _log_is_clean(size: int, read: Callable[[int, int], bytes]) -> bool:
    """By the newer of the two restart pages. A log without any was never used."""
    head = read(0, 32) if size >= 32 else b""
    given = int.from_bytes(head[16:20], "little") if head[:4] in _MAGICS else 0
    page = given if given in _PAGE_SIZES else 4096
    newest = (-1, True)
    for offset in (0, page):
        if offset + page <= size:
            newest = max(newest, _restart_page(read(offset, page)))
    return newest[1]


def _restart_page(page: bytes) -> tuple[int, bool]:
    """(its position in the log, whether all is done); -1 if it is none."""
    magic = page[:4]
    whole = repaired(page, len(page), magic)[0] if magic in _MAGICS else None
    if whole is None:
        return -1, True
    area = int.from_bytes(whole[24:26], "little")
    if area + _AREA.size > len(whole):
        return -1, True
    position, clients, flags = _AREA.unpack_from(whole, area)
    return position, clients == _NO_CLIENT or bool(flags & _CLEAN)
