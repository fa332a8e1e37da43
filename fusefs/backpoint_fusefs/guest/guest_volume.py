"""A volume's filesystem, asked through its parser process.

Everything the process says is hostile: an answer of the wrong shape is damage. Decides when a
process is started anew, and that a request which killed one is not tried again. Blocks; whoever
must not wait calls it from a thread.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

from backpoint_fusefs.guest.filesystem import (
    Extent,
    FileId,
    GuestDamaged,
    GuestError,
    Stat,
    VolumeFacts,
    check_extents,
)
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_fusefs.guest.worker.parser_process import ParserDied, ParserKilled, ParserProcess

INO_BITS: Final = 39
"""Bits of a file's number that the mount has room for."""
_NAME_MAX: Final = 1024
"""HFS+ and NTFS count 255 characters, of up to 4 bytes each."""
_LINK_MAX: Final = 4096
_SECONDS: Final = range(-(2**62), 2**62)
"""Since 1970: the kernel has 64 bits for them, and nobody needs the last ones."""
_DEADLY_KEPT: Final = 1000
_NOWHERE: Final = FileId(0, (1 << INO_BITS) - 1)
"""For entries whose file has an impossible number: nothing is there."""

Start = Callable[[Volume, VolumeReader], ParserProcess]


class Line(NamedTuple):
    """An entry of a folder. found: its stat; None where that cannot be read."""

    name: bytes
    file: FileId
    found: Stat | None


class Page(NamedTuple):
    """Some of a folder's entries; more: there is a page behind it."""

    more: bool
    lines: list[Line]


class GuestVolume:
    """Thread-safe. Every method raises GuestError, and what reading the disks raises.

    clock: seconds, monotonic.
    """

    def __init__(
        self,
        volume: Volume,
        reader: VolumeReader,
        start: Start,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.volume = volume
        self.reader = reader
        self.used_at = clock()
        self._start = start
        self._clock = clock
        self._process: ParserProcess | None = None
        self._opened: tuple[FileId, VolumeFacts] | None = None
        self._retired = False
        self._deadly: dict[tuple[Any, ...], str] = {}

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        process = self._process
        return process is not None and process.alive

    def end_if_idle(self) -> bool:
        """End its process unless it is at work; the next request starts another."""
        process = self._process
        return process is None or not process.alive or process.end_if_idle()

    def retire(self) -> None:
        """End its process for good: whoever still asks gets an error."""
        self._retired = True
        self._end()

    def root(self) -> FileId:
        return self._open()[0]

    def facts(self) -> VolumeFacts:
        return self._open()[1]

    def stat(self, file: FileId) -> Stat:
        return _stat(self._ask("stat", *file))

    def lookup(self, folder: FileId, name: bytes) -> Stat | None:
        """What a folder has under this name."""
        found = self._ask("lookup", *folder, name)
        return None if found is None else _stat(found)

    def page(self, folder: FileId, number: int) -> Page:
        """Page number 0, 1, ... of a folder's listing."""
        match self._ask("page", *folder, number):
            case (bool(more), (*lines,)):
                return Page(more, [read for line in lines if (read := _line(line)) is not None])
            case _:
                raise _nonsense("page")

    def readlink(self, file: FileId) -> bytes:
        target = self._ask("readlink", *file)
        if not isinstance(target, bytes) or not 0 < len(target) <= _LINK_MAX or b"\0" in target:
            raise _nonsense("readlink")
        return target

    def xattrs(self, file: FileId) -> dict[bytes, bytes]:
        return _xattrs(self._ask("xattrs", *file))

    def xattrs_of(self, files: Sequence[FileId]) -> list[dict[bytes, bytes] | None]:
        """Of many files, in their order; None for one whose attributes cannot be read."""
        found = self._ask("xattrs_of", *files)
        if not isinstance(found, tuple) or len(found) != len(files):
            raise _nonsense("xattrs_of")
        return [None if one is None else _xattrs(one) for one in found]

    def extents(self, found: Stat) -> list[Extent]:
        """Of a regular file, checked."""
        packed = self._ask("extents", *found.file)
        if not isinstance(packed, bytes) or len(packed) % 24:
            raise _nonsense("extents")
        numbers = array("q", packed)
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        return check_extents(map(Extent._make, triples), found.size, self.reader.size)

    def read(self, found: Stat, offset: int, length: int) -> bytes:
        """Through the parser: for what is decoded."""
        length = max(0, min(length, found.size - offset))
        content = self._ask("read", *found.file, offset, length)
        if not isinstance(content, bytes) or len(content) != length:
            raise _nonsense("read")
        return content

    def subvolumes(self) -> dict[bytes, FileId]:
        """Path -> root, where the filesystem has such things."""
        found = self._ask("subvolumes")
        if not isinstance(found, Mapping):
            raise _nonsense("subvolumes")
        return {path: _file(file) for path, file in found.items() if isinstance(path, bytes)}

    def default_subvolume(self) -> FileId:
        return _file(self._ask("default_subvolume"))

    def mounted_devices(self, hive: FileId) -> dict[str, bytes]:
        """MountedDevices of a Windows registry hive."""
        found = self._ask("mounted_devices", *hive)
        if not isinstance(found, Mapping):
            raise _nonsense("mounted_devices")
        pairs = found.items()
        return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, bytes)}

    def _open(self) -> tuple[FileId, VolumeFacts]:
        if self._opened is None:
            match self._ask("opened"):
                case (root, str(recovery), int(replayed)):
                    self._opened = _file(root), VolumeFacts(recovery[:500], replayed)
                case _:
                    raise _nonsense("opened")
        return self._opened

    def _ask(self, *request: Any) -> Any:
        if request in self._deadly:
            raise ParserDied(self._deadly[request])
        self.used_at = self._clock()
        try:
            return self._asked(request)
        except ParserDied as error:
            # The same bytes would do the same to the next process.
            self._end()
            if len(self._deadly) < _DEADLY_KEPT:
                self._deadly[request] = str(error)
            raise
        finally:
            self.used_at = self._clock()

    def _asked(self, request: tuple[Any, ...]) -> Any:
        try:
            return self._running_process().ask(*request)
        except ParserKilled:
            # Not for what it was asked, as far as anybody knows: once more.
            self._end()
            return self._running_process().ask(*request)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _running_process(self) -> ParserProcess:
        if self._retired:
            raise GuestError("it is no longer at hand; look again")
        process = self._process
        if process is None or not process.alive:
            process = self._process = self._start(self.volume, self.reader)
        return process


def _stat(found: Any) -> Stat:
    if not isinstance(found, tuple) or len(found) != len(Stat._fields):
        raise _nonsense("stat")
    made = Stat(*found)
    if not all(map(isinstance, made, repeat(int))):
        accessed, modified, changed = map(_time, (made.atime_ns, made.mtime_ns, made.ctime_ns))
        made = made._replace(atime_ns=accessed, mtime_ns=modified, ctime_ns=changed)
        if not all(map(isinstance, made, repeat(int))):
            raise _nonsense("stat")
    if not 0 < made.ino < 1 << INO_BITS or not 0 <= made.tree < 1 << 63:
        raise GuestDamaged(f"a file has the impossible number {made.tree}:{made.ino}")
    if not 0 <= made.size < 1 << 63 or not 0 <= made.allocated < 1 << 63:
        raise GuestDamaged(f"the file {made.ino} has an impossible size")
    if (made.uid | made.gid | made.nlink) >> 32:
        raise GuestDamaged(f"the file {made.ino} has an impossible owner or number of links")
    if made.mode >> 16 or made.rdev >> 64:
        raise GuestDamaged(f"the file {made.ino} has an impossible mode or device number")
    return made


def _time(sent: Any) -> int:
    """Nanoseconds; from seconds and nanoseconds where they are too many for a message."""
    match sent:
        case int(moment):
            return moment
        case (int(seconds), int(rest)) if seconds in _SECONDS and 0 <= rest < 10**9:
            return seconds * 10**9 + rest
        case _:
            raise GuestDamaged("a file has an impossible time")


def _xattrs(found: Any) -> dict[bytes, bytes]:
    if not isinstance(found, Mapping):
        raise _nonsense("xattrs")
    if not all(isinstance(part, bytes) for pair in found.items() for part in pair):
        raise _nonsense("xattrs")
    return {name: value for name, value in found.items() if b"\0" not in name}


def _line(line: Any) -> Line | None:
    """None for a name that no kernel would take."""
    match line:
        case (bytes(name), file, found):
            if not 0 < len(name) <= _NAME_MAX or b"/" in name or b"\0" in name:
                return None
            if name in (b".", b".."):
                return None
            try:
                return Line(name, _file(file), None if found is None else _stat(found))
            except GuestDamaged:
                # Shown, because it is there; whoever looks at it gets an error.
                return Line(name, _NOWHERE, None)
        case _:
            raise _nonsense("page")


def _file(found: Any) -> FileId:
    match found:
        case (int(tree), int(ino)) if 0 <= tree < 1 << 63 and 0 < ino < 1 << INO_BITS:
            return FileId(tree, ino)
        case _:
            raise _nonsense("file")


def _nonsense(about: str) -> GuestError:
    return GuestDamaged(f"its parser said something impossible about {about!r}")
