"""A store seen through a keyring: whole objects are sealed on the way in, opened on the way out.

Decides nothing about what the objects mean; every module that keeps records stands on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import FOLDERS, Kind, expect_header, object_key, parse_header
from backpoint_repo.in_threads import in_threads
from backpoint_repo.keyring import Keyring
from backpoint_repo.pack import PackDirectory, read_directory
from backpoint_repo.record import Record
from backpoint_repo.sealing import Packer, TooLargeBeside, open_object, seal_object
from backpoint_repo.store.cached_store import reread
from backpoint_repo.store.contract import Store

_BESIDE_MAX: Final = 32 << 20
"""Bytes that one of several objects which are read at once may unpack to."""

Item = TypeVar("Item")
T = TypeVar("T")


@dataclass(frozen=True)
class SealedStore:
    """Thread-safe. `repository_id` is 16 bytes."""

    store: Store
    keyring: Keyring
    repository_id: bytes
    packer: Packer

    def put(self, kind: Kind, name: str, payload: bytes) -> None:
        """Seal and store. Raises ObjectExists and what a store raises."""
        key = object_key(kind, name)
        sealed = seal_object(kind, key, payload, self.keyring.meta_key, self.packer)
        self.store.put(key, [sealed])

    def get(self, kind: Kind, name: str) -> bytes:
        """Fetch and open. Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
        key, secret = object_key(kind, name), self.keyring.meta_key

        def read() -> bytes:
            return open_object(kind, key, self.store.get(key), secret, self.packer)

        return reread(self.store, key, read)

    def get_record(self, kind: Kind, name: str) -> Record:
        """`get`, as a msgpack map."""
        return Record.decode(self.get(kind, name), object_key(kind, name))

    def get_either(self, name: str, first: Kind, second: Kind) -> tuple[Kind, bytes]:
        """An object that may be of two kinds stored in the same folder."""
        key = object_key(first, name)

        def read() -> tuple[Kind, bytes]:
            data = self.store.get(key)
            kind = parse_header(data, key)
            if kind is not second:
                expect_header(data, first, key)
            return kind, open_object(kind, key, data, self.keyring.meta_key, self.packer)

        return reread(self.store, key, read)

    def each(
        self, items: Iterable[Item], read: Callable[[Item], T]
    ) -> Iterator[tuple[Item, T | RepositoryError]]:
        """What `read` makes of each item, or what it raised, in no order. Where each request waits
        for a network, as many are under way as pay off: for small objects. One that unpacks to a
        lot, which a few stored bytes can do, is read again by itself."""

        def one(item: Item) -> tuple[Item, T | RepositoryError]:
            with self.packer.beside_others(_BESIDE_MAX):
                return item, tried(item, read)

        if self.store.lanes == 1:
            yield from ((item, tried(item, read)) for item in items)
            return
        jobs = (partial(one, item) for item in items)
        with closing(in_threads(jobs, threads=self.store.lanes)) as answers:
            for item, found in answers:
                large = isinstance(found, TooLargeBeside)
                yield item, tried(item, read) if large else found

    def names(self, kind: Kind) -> Iterator[str]:
        """Names of all objects in a kind's folder, unordered."""
        for found in self.store.list(f"{FOLDERS[kind]}/"):
            yield found.key.rpartition("/")[2]

    def delete(self, kind: Kind, name: str) -> None:
        """Remove an object; an absent one is no error."""
        self.store.delete(object_key(kind, name))

    def directory(self, kind: Kind, name: bytes) -> PackDirectory:
        """A pack's directory. Raises ObjectMissing, ObjectDamaged."""
        secret = self.keyring.meta_key
        read = partial(read_directory, self.store, kind, name, secret, self.packer)
        return reread(self.store, object_key(kind, name.hex()), read)


def tried(item: Item, read: Callable[[Item], T]) -> T | RepositoryError:
    """What `read` makes of it, or what it raised."""
    try:
        return read(item)
    except RepositoryError as error:
        return error
