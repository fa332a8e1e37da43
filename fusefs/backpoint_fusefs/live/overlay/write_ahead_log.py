"""A layer's log: a file of zeros that fills with records, so that a sync is one write in place.

Zeros are written beforehand: making durable what needs no new block of the filesystem costs it no
journal commit, less than half the time here. 4096 bytes of header,
    8 s   magic "BPlog\\0\\0\\0"
    u32   version, 1
    u32   0
    32 s  identity of the layer, the key of the records' checksums
    32 s  BLAKE3 of all before
then records (see log_record). The log of a later generation begins at the front again, over the
earlier one's records, which count no more. What records mean is not known here.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from blake3 import blake3

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.data_file import SyncFailed, forget_cached
from backpoint_fusefs.live.overlay.log_record import (
    HEADER,
    DiskSizes,
    Place,
    RecordHead,
    build_record,
    parse_head,
)
from backpoint_repo.durable_file import UNFINISHED, fsync_folder

FIRST_LENGTH: Final = 256 << 10
LENGTH_MAX: Final = 16 << 20
_GROWTH: Final = 4
_HEADER: Final = struct.Struct("<8sII32s")
_MAGIC: Final = b"BPlog\0\0\0"
_VERSION: Final = 1
_ZEROS: Final = bytes(256 << 10)
_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_OUT_OF_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)


class WriteAheadLog:
    """One thread at a time. Methods raise OSError."""

    def __init__(self, path: Path, descriptor: int, identity: bytes) -> None:
        """Use `create` or `open`."""
        self.path = path
        self.identity = identity
        self._descriptor = descriptor
        self._length = min(os.fstat(descriptor).st_size, LENGTH_MAX) // BLOCK * BLOCK
        self._next = Place(0, 0)
        self._end = BLOCK
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def create(cls, path: Path, identity: bytes) -> WriteAheadLog:
        """Durable, and empty. identity: 32 random bytes."""
        head = _HEADER.pack(_MAGIC, _VERSION, 0, identity)
        head = (head + blake3(head).digest()).ljust(BLOCK, b"\0")
        unfinished = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
        descriptor = os.open(unfinished, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write(descriptor, 0, head + bytes(FIRST_LENGTH - BLOCK))
            os.fsync(descriptor)
            unfinished.rename(path)
        except BaseException:
            os.close(descriptor)
            unfinished.unlink(missing_ok=True)
            raise
        log = cls(path, descriptor, identity)
        fsync_folder(path.parent)
        return log

    @classmethod
    def open(cls, path: Path) -> WriteAheadLog:
        """Nothing of it is read but its header. Raises SessionDamaged, OSError."""
        descriptor = os.open(path, _FLAGS)
        forget_cached(descriptor)
        head = os.pread(descriptor, _HEADER.size + 32, 0)
        whole, digest = head[: _HEADER.size], head[_HEADER.size :]
        if blake3(whole).digest() != digest or not whole.startswith(_MAGIC):
            os.close(descriptor)
            raise SessionDamaged(f"{path} is no log of a session's disk: discard the session")
        _, version, _, identity = _HEADER.unpack(whole)
        if version != _VERSION:
            os.close(descriptor)
            raise SessionDamaged(f"{path} was written by a newer version of this program: use that")
        return cls(path, descriptor, identity)

    @property
    def allocated(self) -> int:
        """Bytes it takes on disk."""
        return os.fstat(self._descriptor).st_blocks * 512

    def records(self, generation: int) -> Iterator[tuple[RecordHead, bytes]]:
        """Each verified record of this generation, with its body; the log goes on behind the last.

        Raises SessionDamaged where one is bad and a later one is good: that is no torn end.
        """
        self.begin_anew(generation)
        while (found := self._verified(self._end)) and found[0].place == self._next:
            self._next = Place(generation, self._next.sequence + 1)
            self._end += found[0].length
            yield found
        for offset in range(self._end + BLOCK, self._length, BLOCK):
            later = self._verified(offset)
            if later and later[0].place > self._next and later[0].place.generation == generation:
                raise SessionDamaged(
                    f"{self.path} is damaged in its middle: discard the session"
                    " or bring this file back from a copy"
                )

    def begin_anew(self, generation: int) -> None:
        """What follows is of this generation, from the front on; nothing is written yet."""
        self._next = Place(generation, 0)
        self._end = BLOCK

    def append(self, sizes: DiskSizes, set_form: bytes, content: Sequence[bytes] | None) -> bool:
        """Write a record; durable when it returns True. False: it does not fit, nothing was done.

        Raises SyncFailed, and OSError where it may be tried again.
        """
        record = build_record(self._next, sizes, set_form, content, self.identity)
        if self._end + len(record) > self._length and not self._has_room(len(record)):
            return False
        _write(self._descriptor, self._end, record)
        self._sync()
        self._end += len(record)
        self._next = Place(self._next.generation, self._next.sequence + 1)
        return True

    def settle(self) -> None:
        """What was read of it is durable: a dead process may have written it a moment ago."""
        self._sync()

    def _has_room(self, length: int) -> bool:
        """Makes the log longer where that is allowed, helps, and the filesystem has room."""
        needed = self._end + length
        if needed > LENGTH_MAX:
            return False
        try:
            while needed > self._length:
                self._grow(min(LENGTH_MAX, self._length * _GROWTH))
        except SyncFailed:
            raise
        except OSError as error:
            if error.errno not in _OUT_OF_ROOM:
                raise
        return needed <= self._length

    def _grow(self, longer: int) -> None:
        for offset in range(self._length, longer, len(_ZEROS)):
            _write(self._descriptor, offset, _ZEROS[: longer - offset])
        self._sync()
        self._length = longer

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            if error.errno in _OUT_OF_ROOM:
                # The whole record will be written again, so that nothing of it can be missing.
                raise
            raise SyncFailed(error.errno, error.strerror, str(self.path)) from error

    def _verified(self, offset: int) -> tuple[RecordHead, bytes] | None:
        head = parse_head(os.pread(self._descriptor, HEADER, offset))
        if head is None or offset + head.length > self._length:
            return None
        body = os.pread(self._descriptor, head.body_length, offset + HEADER)
        return (head, body) if head.is_true(body, self.identity) else None


def _write(descriptor: int, offset: int, data: bytes) -> None:
    done = os.pwrite(descriptor, data, offset)
    while done < len(data):
        done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)
