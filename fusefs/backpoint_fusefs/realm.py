"""What a part of the mounted tree offers to the file system's operations, by inode number.

The mount has four: the points and what lies in their folders, the `guest/` folders, the guests' own
files below them, and the live sessions, which alone can be changed. A contract; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pyfuse3 import EntryAttributes


class Stale(Exception):
    """Nothing has this number (any more)."""


class NotAFolder(Exception):
    """Something inside a thing that is no folder was asked for."""


class NotAFile(Exception):
    """Something without content was to be opened."""


class ReadOnly(Exception):
    """What was to be changed cannot be."""


class OtherVolume(Exception):
    """Something was to be moved where it could only be copied."""


class Opened(Protocol):
    """A file that a program has open. label: for messages."""

    label: str

    async def read(self, offset: int, length: int) -> bytes | memoryview: ...

    def close(self) -> None: ...


Line = tuple[int, bytes, EntryAttributes]
"""Position, name, attributes. Positions rise; network clients go on from one days later."""


class FolderListing(Protocol):
    """A folder that a program lists."""

    async def lines(self, start: int) -> Iterable[Line]:
        """Some entries behind position `start` (0: before the first); none behind the last. Made
        while they are taken."""
        ...


class Realm(Protocol):
    """Every method raises Stale, and what a repository or a guest's filesystem raises."""

    async def attributes(self, inode: int) -> EntryAttributes: ...

    async def parent(self, folder: int) -> int:
        """The number of the folder that a folder lies in; it may be another realm's."""
        ...

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        """Raises NotAFolder."""
        ...

    async def listing(self, folder: int) -> FolderListing:
        """Raises NotAFolder."""
        ...

    async def target(self, link: int) -> bytes: ...

    async def open(self, file: int) -> Opened:
        """Raises NotAFile."""
        ...

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        """Those that are listed."""
        ...

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        """One that is there for who asks for it by name: copying programs must not see it."""
        ...


class WritableOpened(Opened, Protocol):
    """A file that a program has open and may write to. Methods raise OSError too."""

    async def write(self, offset: int, data: bytes) -> None:
        """All of it."""
        ...

    async def sync(self) -> None:
        """All that was written to the file is durable when this returns."""
        ...

    async def closed(self) -> None:
        """What is left to do after `close`."""
        ...


@dataclass(frozen=True, slots=True)
class Maker:
    """Who makes something, and how it may be used. mode: permission bits."""

    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Of attributes; None: stays. size: bytes."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None


class WritableRealm(Realm, Protocol):
    """Every change is durable when it returns, but for content that is written. Methods raise what
    `Realm`'s do, ReadOnly, and OSError with POSIX's errno."""

    async def open(self, file: int) -> WritableOpened:
        """To read it. Raises NotAFile."""
        ...

    async def open_writable(self, file: int, *, truncate: bool) -> WritableOpened:
        """Raises NotAFile."""
        ...

    async def create(self, folder: int, name: bytes, maker: Maker) -> EntryAttributes:
        """An empty file."""
        ...

    async def make_folder(self, folder: int, name: bytes, maker: Maker) -> EntryAttributes: ...

    async def make_link(
        self, folder: int, name: bytes, target: bytes, maker: Maker
    ) -> EntryAttributes: ...

    async def unlink(self, folder: int, name: bytes) -> None: ...

    async def remove_folder(self, folder: int, name: bytes) -> None: ...

    async def rename(
        self, folder: int, name: bytes, new_folder: int, new_name: bytes, *, replace: bool
    ) -> None:
        """Raises OtherVolume."""
        ...

    async def change(self, inode: int, changes: Changes) -> EntryAttributes: ...

    async def room(self) -> tuple[int, int, int]:
        """What the disk below has: its size, what is free, and of that what we may use; bytes."""
        ...
