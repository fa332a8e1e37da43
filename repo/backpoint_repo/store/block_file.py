"""One block of a stored object as a file on a local disk, believed only where its codes say so.

Decides the layout of the file and what of it is believed. Knows neither folders nor stores.

A file is a head (magic, print of the object's key, number, length, last), a code of 16 bytes for
each piece of 64 KiB, then the pieces, sealed as the store has them. A code is BLAKE3 under a key
that only holders of the repository secret can derive, over the head, the number of the piece and
the piece. So what a crash cut short, what rotted, what belongs elsewhere and what somebody else
made is not believed; and who wants 4 KiB of a block reads and verifies 64.
"""

from __future__ import annotations

import hmac
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from blake3 import blake3

BLOCK: Final = 1 << 20
"""Bytes of an object in one file: a request's latency at 200 MB/s costs ten of them."""
PIECE: Final = 64 << 10
PRINT_SIZE: Final = 16
_CODE_SIZE: Final = 16
_MAGIC: Final = b"BPBLOCK1"
_HEAD: Final = struct.Struct("<8s16sIIB3x")
_TOP_MAX: Final = _HEAD.size + BLOCK // PIECE * _CODE_SIZE
FILE_SIZE_MAX: Final = _TOP_MAX + BLOCK
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a pipe in the place of a file must not be waited for."""


class NotBelieved(Exception):
    """The file is torn, altered, of another block, or no file at all."""


class Block(NamedTuple):
    """last: the object ends with it; only such a one may be shorter than BLOCK, or empty."""

    data: bytes | memoryview
    last: bool


class Part(NamedTuple):
    """Some bytes of a block. number, length: of the whole block, the length in bytes."""

    data: bytes
    number: int
    length: int
    last: bool


def encode_block(
    key: bytes, object_print: bytes, number: int, block: Block
) -> list[bytes | memoryview]:
    """The file, in parts. key: 32 bytes. object_print: 16 bytes that stand for the object's key."""
    head = _HEAD.pack(_MAGIC, object_print, number, len(block.data), block.last)
    view = memoryview(block.data)
    codes = [_code(key, head, at, piece) for at, piece in enumerate(_pieces(view))]
    return [head, *codes, view]


def open_block(path: str) -> int:
    """A descriptor, to be closed. Raises OSError."""
    return os.open(path, _FLAGS)


def read_block(
    descriptor: int, key: bytes, object_print: bytes, number: int | None, start: int, stop: int
) -> Part:
    """Bytes from `start` up to `stop`, as far as the block has them, verified.

    number: None where it is the object's last, whichever that is. Raises NotBelieved, OSError.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or not _HEAD.size < found.st_size <= FILE_SIZE_MAX:
        raise NotBelieved("no file of a block")
    top = os.pread(descriptor, _TOP_MAX, 0)
    if len(top) < _HEAD.size:
        raise NotBelieved("torn")
    head = top[: _HEAD.size]
    magic, whose, of, length, last = _HEAD.unpack(head)
    if magic != _MAGIC or whose != object_print or (not last if number is None else of != number):
        raise NotBelieved("of another block")
    codes = _HEAD.size + _count(length) * _CODE_SIZE
    if length > BLOCK or (length < BLOCK and not last) or found.st_size != codes + length:
        raise NotBelieved("of a wrong size")
    start, stop = min(start, length), min(stop, length)
    # One piece is verified even where none is wanted: the head is believed for its code's sake.
    first = min(start // PIECE, _count(length) - 1)
    end = max(first + 1, _count(stop) if stop else 0)
    at, till = first * PIECE, min(end * PIECE, length)
    data = os.pread(descriptor, till - at, codes + at)
    if len(data) != till - at:
        raise NotBelieved("torn")
    view = memoryview(data)
    for piece_number in range(first, end):
        piece = view[(piece_number - first) * PIECE : (piece_number - first + 1) * PIECE]
        code_at = _HEAD.size + piece_number * _CODE_SIZE
        code = _code(key, head, piece_number, piece)
        if not hmac.compare_digest(code, top[code_at : code_at + _CODE_SIZE]):
            raise NotBelieved("altered")
    wanted = data if (start, stop) == (at, till) else data[start - at : max(stop, start) - at]
    return Part(wanted, of, length, bool(last))


def _pieces(view: memoryview) -> Iterator[memoryview]:
    """At least one, so that an empty block has a code, too."""
    for at in range(0, max(1, len(view)), PIECE):
        yield view[at : at + PIECE]


def _count(length: int) -> int:
    return max(1, -(-length // PIECE))


def _code(key: bytes, head: bytes, piece_number: int, piece: memoryview) -> bytes:
    summing = blake3(head + piece_number.to_bytes(4, "little"), key=key)
    return summing.update(piece).digest(_CODE_SIZE)
