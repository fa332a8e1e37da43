"""What a part of the mounted tree offers to the file system's operations, by inode number.

The mount has three: the points and what lies in their folders, the `guest/` folders, and the
guests' own files below them. A contract; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from pyfuse3 import EntryAttributes


class Stale(Exception):
    """Nothing has this number (any more)."""


class NotAFolder(Exception):
    """Something inside a thing that is no folder was asked for."""


class NotAFile(Exception):
    """Something without content was to be opened."""


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
