"""A folder that becomes immutable media: what lasts is written once, one file after the other.

Nothing in it is ever renamed, linked, rewritten or deleted. What a repository has only while it is
at work (leases, index segments and catalogues that will be merged) lies in a scratch folder until
the end. Decides which objects are of which sort. For one process, in a folder that nobody else
writes to: an object is not whole before its put returns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import ObjectExists, ObjectMissing, StoreReadOnly, StoreUnavailable
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.store.contract import Piece, Store, StoredObject, Tail
from backpoint_repo.store.local import WRITE_FAULTS, LocalStore

_LASTING: Final = tuple(
    f"{FOLDERS[kind]}/" for kind in (Kind.DATA_PACK, Kind.NODE_PACK, Kind.POINT)
)


class WriteOnce:
    """A `Store` that only adds. Thread-safe."""

    def __init__(self, root: Path) -> None:
        """`root` need not exist."""
        self._root = root.absolute()
        self._reading = LocalStore(root)

    @property
    def address(self) -> str:
        return str(self._root)

    @property
    def lanes(self) -> int:
        return self._reading.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        target = self._root / key
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _fault(target, error) from error
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(fd)
        except FileExistsError:
            raise ObjectExists(f"{key} exists") from None
        except OSError as error:
            raise _fault(target, error) from error

    def get(self, key: str) -> bytes:
        return self._reading.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self._reading.get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        return self._reading.get_tail(key, length)

    def size(self, key: str) -> int:
        return self._reading.size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._reading.list(prefix)

    def delete(self, key: str) -> None:
        raise StoreReadOnly(f"cannot delete {self._root / key}: this folder is written once")

    def settle(self) -> None:
        """Make all folders durable. Raises StoreUnavailable."""
        try:
            for folder, _, _ in os.walk(self._root):
                fsync_folder(Path(folder))
            fsync_folder(self._root.parent)
        except OSError as error:
            raise _fault(self._root, error) from error


class MediaStore:
    """A `Store`: what lasts goes to `lasting`, all else to `scratch`. Thread-safe."""

    def __init__(self, lasting: Store, scratch: Store) -> None:
        self._lasting, self._scratch = lasting, scratch

    @property
    def address(self) -> str:
        return self._lasting.address

    @property
    def lanes(self) -> int:
        return self._lasting.lanes

    def put(self, key: str, pieces: list[Piece]) -> None:
        self._of(key).put(key, pieces)

    def get(self, key: str) -> bytes:
        return self._holder(key).get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self._holder(key).get_range(key, offset, length)

    def get_tail(self, key: str, length: int) -> Tail:
        return self._holder(key).get_tail(key, length)

    def size(self, key: str) -> int:
        return self._holder(key).size(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        yield from self._lasting.list(prefix)
        yield from self._scratch.list(prefix)

    def delete(self, key: str) -> None:
        self._of(key).delete(key)

    def _of(self, key: str) -> Store:
        return self._lasting if key.startswith(_LASTING) else self._scratch

    def _holder(self, key: str) -> Store:
        """Where it is: a configuration or a policy may have been there before."""
        if key.startswith(_LASTING):
            return self._lasting
        try:
            self._scratch.size(key)
        except ObjectMissing:
            return self._lasting
        return self._scratch


def _fault(path: Path, error: OSError) -> StoreUnavailable:
    fault = WRITE_FAULTS.get(error.errno or 0, StoreUnavailable)
    return fault(f"cannot write {path}: {error.strerror}")
