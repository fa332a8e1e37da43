"""Compressed extents: stored bytes in, file bytes out.

Decides nothing but that: at most 128 KiB come out of one, whatever the bytes claim. Here and not
in dissect's `decode_extent` because that has no bound (10 KB of zeros as zlib become 10 MB), and
ends LZO at the first zero length instead of at the length the data states. LZO segments themselves
are dissect's, in Rust.
"""

from __future__ import annotations

import sys
import zlib
from typing import Final

from dissect.util.compression import lzo

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestUnsupported

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NONE: Final = 0
ZLIB: Final = 1
LZO: Final = 2
ZSTD: Final = 3

# Linux fs/btrfs/compression.h: BTRFS_MAX_COMPRESSED, BTRFS_MAX_UNCOMPRESSED, and zstd.c's window.
DECODED_MAX: Final = 128 << 10
STORED_MAX: Final = 128 << 10
_WINDOW_LOG_MAX: Final = 17
_LENGTH: Final = 4


def decode(stored: bytes, compression: int, size: int, sector_size: int) -> bytes:
    """Exactly `size` bytes. The tail of the last sector, beyond the end that the file had when it
    was written, may not have been stored: zeros."""
    # Not zero either: no limit at all to zlib.
    if not 0 < size <= DECODED_MAX or len(stored) > STORED_MAX:
        raise GuestDamaged("a compressed extent has an impossible size")
    try:
        data = _decoded(stored, compression, size, sector_size)
    except (zlib.error, zstd.ZstdError, ValueError, EOFError) as error:
        raise GuestDamaged(f"a compressed extent cannot be decoded: {error}") from error
    if len(data) + sector_size <= size:
        raise GuestDamaged("a compressed extent holds less than it should")
    return data[:size].ljust(size, b"\0")


def _decoded(stored: bytes, compression: int, size: int, sector_size: int) -> bytes:
    if compression == ZLIB:
        return zlib.decompressobj().decompress(stored, size)
    if compression == LZO:
        return _lzo(stored, size, sector_size)
    if compression == ZSTD:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
        return zstd.ZstdDecompressor(options=options).decompress(stored, size)
    raise GuestUnsupported(f"the compression {compression} is unknown")


def _lzo(stored: bytes, size: int, sector_size: int) -> bytes:
    """The total length, then segments of one sector each after their length, which no sector
    border cuts (Linux fs/btrfs/lzo.c)."""
    total = int.from_bytes(stored[:_LENGTH], "little")
    if total > len(stored):
        raise GuestDamaged("a compressed extent is cut off")
    # LZO may make bytes that it cannot compress a little longer.
    segment_max = sector_size + sector_size // 16 + 64 + 3
    decoded = bytearray()
    at = _LENGTH
    while at < total and len(decoded) < size:
        length = int.from_bytes(stored[at : at + _LENGTH], "little")
        at += _LENGTH
        if not 0 < length <= min(segment_max, total - at):
            raise GuestDamaged("a segment of a compressed extent has an impossible length")
        decoded += lzo.decompress(stored[at : at + length], False, sector_size)
        at += length
        # After the last segment too: the total counts it.
        left_in_sector = -at % sector_size
        if left_in_sector < _LENGTH:
            at += left_in_sector
    return bytes(decoded)
