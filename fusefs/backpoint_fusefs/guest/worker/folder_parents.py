"""Which folder a folder lies in: for who has its number alone, as network clients do.

Asks the filesystem where it knows; else walks the tree, breadth first, and goes on with the walk at
the next question. Decides how far one request walks and how much is remembered. Knows no process.
"""

from __future__ import annotations

import stat
from collections import deque
from typing import Final, Protocol, runtime_checkable

from backpoint_fusefs.guest.filesystem import FileId, GuestError, GuestFilesystem

_ENTRIES_AT_ONCE: Final = 20_000
"""Looked at in one request: about a second, far below a request's time limit."""
_FOLDERS_MAX: Final = 300_000
"""Remembered: 60 MB."""


@runtime_checkable
class KnowsParents(Protocol):
    """A filesystem whose folders tell where they are."""

    def parent(self, folder: FileId) -> FileId | None:
        """Of a folder that is not the root; None where this one does not tell. What it says is
        not held against the other's entries. Raises GuestError."""
        ...


class FolderParents:
    """Not thread-safe."""

    def __init__(self, files: GuestFilesystem) -> None:
        self._files = files
        self._parents: dict[FileId, FileId] = {}
        self._ahead = deque([files.root])

    def parent(self, folder: FileId) -> tuple[FileId | None, bool]:
        """The folder it lies in, None where that is not known; whether to ask again."""
        if folder == self._files.root:
            return None, False
        told = self._files.parent(folder) if isinstance(self._files, KnowsParents) else None
        if told is not None:
            return told, False
        left = _ENTRIES_AT_ONCE
        while folder not in self._parents and self._ahead and left > 0:
            left -= self._walk(self._ahead.popleft())
        found = self._parents.get(folder)
        return found, found is None and bool(self._ahead)

    def _walk(self, folder: FileId) -> int:
        """Remember the folders in one; how many entries it has, and one for itself."""
        try:
            entries = list(self._files.entries(folder))
            stats = self._files.stats([entry.file for entry in entries])
        except GuestError:
            return 1  # what lies below it has no way up
        for found in stats:
            if found is None or not stat.S_ISDIR(found.mode) or found.file in self._parents:
                continue
            if len(self._parents) >= _FOLDERS_MAX:
                self._ahead.clear()
                break
            self._parents[found.file] = folder
            self._ahead.append(found.file)
        return 1 + len(entries)
