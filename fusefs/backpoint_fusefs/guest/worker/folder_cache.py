"""The listings of the folders that were looked at last, so that a page of a large one, or a name in
it, does not cost reading it again.

Bounded by entries, not by folders. Knows no process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from backpoint_fusefs.guest.filesystem import DirEntry, FileId, GuestUnsupported

FOLDER_MAX: Final = 1_000_000
"""Entries of one folder: 400 MB in a parser's memory."""
_KEPT: Final = 500_000

List = Callable[[FileId], Iterable[DirEntry]]


class Folder:
    """entries: in the order of their files' numbers."""

    def __init__(self, entries: list[DirEntry]) -> None:
        self.entries = entries
        self._by_name: dict[bytes, FileId] | None = None

    def find(self, name: bytes) -> FileId | None:
        """The file with this name; of several, which a sound folder has not, one of them."""
        if self._by_name is None:
            self._by_name = dict(self.entries)
        return self._by_name.get(name)


class FolderCache:
    """Not thread-safe."""

    def __init__(self, list_folder: List) -> None:
        self._list = list_folder
        self._folders: OrderedDict[FileId, Folder] = OrderedDict()
        self._held = 0

    def folder(self, file: FileId) -> Folder:
        """Raises what listing it raises; GuestUnsupported where it is too large."""
        found = self._folders.get(file)
        if found is not None:
            self._folders.move_to_end(file)
            return found
        entries = list(islice(self._list(file), FOLDER_MAX + 1))
        if len(entries) > FOLDER_MAX:
            raise GuestUnsupported(f"a folder of more than {FOLDER_MAX:,} entries")
        # In the order of their numbers what is asked about a page lies together: in ext4's own
        # order, by hash, each page of 100,000 entries needs the whole table (5 s and not 0.8 s).
        entries.sort(key=lambda entry: entry.file.ino)
        folder = self._folders[file] = Folder(entries)
        self._held += len(entries)
        while self._held > _KEPT and len(self._folders) > 1:
            self._held -= len(self._folders.popitem(last=False)[1].entries)
        return folder
