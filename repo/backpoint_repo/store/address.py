"""Opens the store that an address names: a directory, or a bucket of an object store.

What belongs to object stores is imported only for one, so that a local repository does not wait
for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.store.place import parse_place
from backpoint_repo.store.settings import VARIABLE, StoreTables, read_store_file


def open_store(
    address: str, environment: Mapping[str, str], tables: StoreTables | None = None
) -> Store:
    """The store at an address, which is not asked for anything yet.

    tables: of a configuration; without them, those of the file that BACKPOINT_CONFIG names in the
    environment, which is read only where the address is a bucket's. Raises UsageError for an
    address or settings that mean nothing, KeyFault for credentials that cannot be read,
    StoreMisconfigured.
    """
    place = parse_place(address)
    if isinstance(place, Path):
        return LocalStore(place)
    from backpoint_repo.store.bucket import open_bucket
    from backpoint_repo.store.object_store import ObjectStore
    from backpoint_repo.store.probe import GuardedStore

    if tables is None:
        file = environment.get(VARIABLE)
        tables = read_store_file(Path(file)) if file else StoreTables()
    bucket = open_bucket(place, tables.settings_of(place), environment)
    return GuardedStore(ObjectStore(bucket, place.address))
