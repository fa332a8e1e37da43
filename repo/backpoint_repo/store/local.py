"""A repository in a local directory: keys are paths, objects are files.

An object is written under a temporary name, fsynced, linked to its own name (which fails where
that is taken: put-if-absent) and its directory is fsynced; so what has a name is whole. A name can
be seen a moment before its directory is fsynced, and whoever made it may be killed in that moment.
So before anything is changed all directories that were looked into are fsynced: nothing comes to
rest on what a power cut could take back. Read descriptors are kept open, because a mount reads the
same packs over and over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from backpoint_repo.store.contract import Piece, StoredObject, Tail

OPEN_FILES_MAX: Final = 256
"""Descriptors kept open for reading; the usual limit of a process is 1024."""
IOV_MAX: Final = 1024
TEMPORARY: Final = "tmp"

WRITE_FAULTS: Final[dict[int, type[StoreUnavailable]]] = {
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.EROFS: StoreReadOnly,
    errno.EACCES: StoreReadOnly,
    errno.EPERM: StoreReadOnly,
}


class LocalStore:
    """A directory, readable and writable by its owner only (objects 0600, folders 0700)."""

    def __init__(self, root: Path) -> None:
        """`root` need not exist before the first put."""
        self._root = root.absolute()
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenObject] = OrderedDict()
        self._folders: set[Path] = set()
        self._settling = threading.Lock()
        self._seen: set[str] = set()
        """Folders looked into since they were last fsynced."""

    @property
    def address(self) -> str:
        return str(self._root)

    @property
    def lanes(self) -> int:
        return 1

    def put(self, key: str, pieces: list[Piece]) -> None:
        target = self._root / key
        temporary = self._root / TEMPORARY / secrets.token_hex(16)
        try:
            self._settle()
            self._make_folder(temporary.parent)
            self._make_folder(target.parent)
            _put_through(temporary, target, pieces)
        except FileExistsError:
            self._saw(key)
            raise ObjectExists(f"{key} exists") from None
        except OSError as error:
            fault = WRITE_FAULTS.get(error.errno or 0, StoreUnavailable)
            raise fault(f"cannot write {target}: {error.strerror}") from error

    def get(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except OSError as error:
            raise self._read_fault(key, error) from error
        finally:
            self._saw(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        try:
            return self._opened(key).read(offset, length)
        except OSError as error:
            raise self._read_fault(key, error) from error

    def get_tail(self, key: str, length: int) -> Tail:
        try:
            opened = self._opened(key)
            size = opened.size
            return Tail(size, opened.read(max(0, size - length), min(length, size)))
        except OSError as error:
            raise self._read_fault(key, error) from error

    def size(self, key: str) -> int:
        try:
            return os.stat(self._root / key).st_size
        except OSError as error:
            raise self._read_fault(key, error) from error
        finally:
            self._saw(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        try:
            yield from self._walk(prefix.rstrip("/"))
        except OSError as error:
            raise self._read_fault(prefix, error) from error

    def delete(self, key: str) -> None:
        with self._lock:
            self._open.pop(key, None)
        try:
            self._settle()
            # Also when it is gone: whoever deleted it may have been killed before this.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._root / key)
            fsync_folder((self._root / key).parent)
        except FileNotFoundError:
            return
        except OSError as error:
            fault = WRITE_FAULTS.get(error.errno or 0, StoreUnavailable)
            raise fault(f"cannot delete {self._root / key}: {error.strerror}") from error

    def _walk(self, folder: str) -> Iterator[StoredObject]:
        """Vanishing folders and objects are what a concurrent collector does, so no error."""
        try:
            entries = list(os.scandir(self._root / folder))
        except FileNotFoundError:
            return
        self._saw(f"{folder}/")
        for entry in entries:
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                if key != TEMPORARY:
                    yield from self._walk(key)
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    yield StoredObject(key, entry.stat(follow_symlinks=False).st_size)

    def _opened(self, key: str) -> _OpenObject:
        with self._lock:
            found = self._open.get(key)
            if found is not None:
                self._open.move_to_end(key)
                return found
        try:
            opened = _OpenObject(self._root / key)
        finally:
            self._saw(key)
        with self._lock:
            self._open[key] = opened
            while len(self._open) > OPEN_FILES_MAX:
                self._open.popitem(last=False)
        return opened

    def _make_folder(self, folder: Path) -> None:
        """Create with its parents, each durable in its parent before anything is put inside.

        One that is there may have been made a moment ago by a process that was killed before it
        synced it. Above the root that can only be while there is no root.
        """
        if folder in self._folders or folder == folder.parent:
            return
        if folder != self._root or not folder.exists():
            self._make_folder(folder.parent)
        made = _mkdir(folder)
        try:
            fsync_folder(folder.parent)
        except OSError:
            # Not every folder that others made can be opened or synced.
            if made or folder.parent.is_relative_to(self._root):
                raise
        self._folders.add(folder)

    def _saw(self, key: str) -> None:
        """What is in the folder of a key, or is not, was looked at."""
        folders, folder = {""}, key
        while folder:
            folder = folder.rpartition("/")[0]
            folders.add(folder)
        with self._lock:
            self._seen |= folders

    def _settle(self) -> None:
        """Make durable all that was seen. Whoever comes meanwhile waits for it."""
        with self._settling:
            with self._lock:
                seen, self._seen = self._seen, set()
            try:
                for folder in seen:
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                        fsync_folder(self._root / folder)
            except OSError:
                with self._lock:
                    self._seen |= seen
                raise

    def _read_fault(self, key: str, error: OSError) -> RepositoryError:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return ObjectMissing(f"{key} is missing in {self._root}")
        return StoreUnavailable(f"cannot read {self._root / key}: {error.strerror}")


class _OpenObject:
    """A read descriptor that closes when the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Readers know what they want; the kernel's guess fills memory with what nobody asked for.
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        while len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


def _mkdir(folder: Path) -> bool:
    """False where it is there already."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    return True


def _put_through(temporary: Path, target: Path, pieces: list[Piece]) -> None:
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, pieces)
            os.fsync(fd)
        finally:
            os.close(fd)
        _link(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    fsync_folder(target.parent)


def _link(temporary: Path, target: Path) -> None:
    """Give the object its name, unless that is taken: the one step that makes it exist."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise StoreUnavailable(
                f"{target.parent} is on a file system without hard links, which a repository needs"
            ) from error
        raise


def _write_all(fd: int, pieces: list[Piece]) -> None:
    views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
    first = 0
    while first < len(views):
        batch = views[first : first + IOV_MAX]
        written = os.writev(fd, batch)
        for view in batch:
            if written < len(view):
                views[first] = view[written:]
                break
            written -= len(view)
            first += 1
