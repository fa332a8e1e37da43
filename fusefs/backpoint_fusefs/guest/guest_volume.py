"""A volume's filesystem, asked through its parser process.

Everything the process says is hostile: an answer of the wrong shape is damage. Decides when a
process is started anew, and that a request which killed one is not tried again. Blocks; whoever
must not wait calls it from a thread.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from backpoint_fusefs.guest.filesystem import (
    Extent,
    FileId,
    GuestError,
    Stat,
    VolumeFacts,
    check_extents,
)
from backpoint_fusefs.guest.parser_answers import (
    Line,
    nonsense,
    read_file_id,
    read_line,
    read_stat,
    read_xattrs,
)
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.guest.volume_reader import VolumeReader
from backpoint_fusefs.guest.worker.parser_process import ParserDied, ParserKilled, ParserProcess

_LINK_MAX: Final = 4096
_DEADLY_KEPT: Final = 1000
_WALK_MAX: Final = 300
"""Requests that look for one folder's parent, of up to a second each."""

Start = Callable[[Volume, VolumeReader], ParserProcess]


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
        return read_stat(self._ask("stat", *file))

    def lookup(self, folder: FileId, name: bytes) -> Stat | None:
        """What a folder has under this name."""
        found = self._ask("lookup", *folder, name)
        return None if found is None else read_stat(found)

    def parent(self, folder: FileId) -> FileId | None:
        """The folder that a folder lies in; None for the root, and where that cannot be told."""
        for _ in range(_WALK_MAX):
            match self._ask("parent", *folder):
                case (None, bool(more)):
                    if not more:
                        return None
                case (found, False):
                    return read_file_id(found)
                case _:
                    raise nonsense("parent")
        return None

    def page(self, folder: FileId, number: int) -> Page:
        """Page number 0, 1, ... of a folder's listing."""
        match self._ask("page", *folder, number):
            case (bool(more), (*lines,)):
                return Page(more, [read for line in lines if (read := read_line(line)) is not None])
            case _:
                raise nonsense("page")

    def readlink(self, file: FileId) -> bytes:
        target = self._ask("readlink", *file)
        if not isinstance(target, bytes) or not 0 < len(target) <= _LINK_MAX or b"\0" in target:
            raise nonsense("readlink")
        return target

    def xattrs(self, file: FileId) -> dict[bytes, bytes]:
        return read_xattrs(self._ask("xattrs", *file))

    def xattrs_of(self, files: Sequence[FileId]) -> list[dict[bytes, bytes] | None]:
        """Of many files, in their order; None for one whose attributes cannot be read."""
        found = self._ask("xattrs_of", *files)
        if not isinstance(found, tuple) or len(found) != len(files):
            raise nonsense("xattrs_of")
        return [None if one is None else read_xattrs(one) for one in found]

    def extents(self, found: Stat) -> list[Extent]:
        """Of a regular file, checked."""
        packed = self._ask("extents", *found.file)
        if not isinstance(packed, bytes) or len(packed) % 24:
            raise nonsense("extents")
        numbers = array("q", packed)
        triples = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        return check_extents(map(Extent._make, triples), found.size, self.reader.size)

    def read(self, found: Stat, offset: int, length: int) -> bytes:
        """Through the parser: for what is decoded."""
        length = max(0, min(length, found.size - offset))
        content = self._ask("read", *found.file, offset, length)
        if not isinstance(content, bytes) or len(content) != length:
            raise nonsense("read")
        return content

    def subvolumes(self) -> dict[bytes, FileId]:
        """Path -> root, where the filesystem has such things."""
        found = self._ask("subvolumes")
        if not isinstance(found, Mapping):
            raise nonsense("subvolumes")
        return {path: read_file_id(file) for path, file in found.items() if isinstance(path, bytes)}

    def default_subvolume(self) -> FileId:
        return read_file_id(self._ask("default_subvolume"))

    def mounted_devices(self, hive: FileId) -> dict[str, bytes]:
        """MountedDevices of a Windows registry hive."""
        found = self._ask("mounted_devices", *hive)
        if not isinstance(found, Mapping):
            raise nonsense("mounted_devices")
        pairs = found.items()
        return {k: v for k, v in pairs if isinstance(k, str) and isinstance(v, bytes)}

    def _open(self) -> tuple[FileId, VolumeFacts]:
        if self._opened is None:
            match self._ask("opened"):
                case (root, str(recovery), int(replayed)):
                    self._opened = read_file_id(root), VolumeFacts(recovery[:500], replayed)
                case _:
                    raise nonsense("opened")
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
