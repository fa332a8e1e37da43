"""Repositories with several packs of different sizes, and what befalls packs.

Columns are small here, so that small packs have several.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Collection, Sequence

from backpoint_repo.format import Kind, object_key
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.pack import PackBuilder
from backpoint_repo.parity.plan import Scheme
from backpoint_repo.parity.repair import read_groups, recover_pack
from backpoint_repo.parity.upkeep import Upkeep, UpkeepReport
from backpoint_repo.repository import Repository
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from small_repository import assert_clean, back_up, keys_of, new_repository, reopened
from synthetic_disk import SyntheticDisk

COLUMN = 4096


def filled_repository(vms: int, seed: int = 1, store: Store | None = None) -> Repository:
    """Each VM has a data pack of up to 60 KB, and a node pack."""
    repository = new_repository(store or MemoryStore())
    add_vms(repository, vms, seed)
    return repository


def add_vms(repository: Repository, vms: int, seed: int) -> dict[str, SyntheticDisk]:
    """Points of new VMs with content of their own; their disks."""
    content, disks = random.Random(seed), dict[str, SyntheticDisk]()
    for number in range(vms):
        disk = SyntheticDisk(1 << 16)
        disk.write(0, content.randbytes(content.randrange(4096, 60_000)))
        disks[f"vm{seed}-{number}"] = disk
        back_up(repository, f"vm{seed}-{number}", disk)
    return disks


def put_pack(sealed: SealedStore, kind: Kind, blobs: Sequence[bytes]) -> PackRef:
    """A pack of bytes that are no true blobs, as whoever has no key sees them."""
    builder = PackBuilder(kind, secrets.token_bytes(16), bytes(16))
    for blob in blobs:
        builder.add(secrets.token_bytes(32), blob, len(blob))
    sealed.store.put(builder.key, builder.finish({}, sealed.keyring.meta_key, sealed.packer))
    return PackRef(kind, builder.name)


def keep_up(repository: Repository, scheme: Scheme | None) -> UpkeepReport:
    """As `backpoint parity` of a new process does."""
    return Upkeep(reopened(repository), scheme, COLUMN).run(lambda _: None)


def packs_of(store: SealedStore) -> dict[PackRef, bytes]:
    """All packs with their bytes."""
    return {pack: store.store.get(key_of(pack)) for pack, _ in sorted(pack_sizes(store))}


def key_of(pack: PackRef) -> str:
    return object_key(pack.kind, pack.name.hex())


def lose(store: Store, keys: Collection[str]) -> dict[str, bytes]:
    """Objects vanish; what they were."""
    lost = {key: store.get(key) for key in keys}
    for key in keys:
        store.delete(key)
    return lost


def overwrite(store: Store, key: str, offset: int, data: bytes) -> None:
    """What a disk does to an object that nobody changes."""
    found = bytearray(store.get(key))
    assert offset + len(data) <= len(found)
    found[offset : offset + len(data)] = data
    store.delete(key)
    store.put(key, [found])


def assert_protected(repository: Repository, scheme: tuple[int, int]) -> None:
    """Each pack is in one group, all groups but one are full, and any pack can be lost."""
    groups = read_groups(repository.sealed)
    packs = packs_of(repository.sealed)
    assert Counter(pack for group in groups.spares for pack in group.packs) == Counter(packs.keys())
    assert sum(len(group.packs) < scheme[0] for group in groups.spares) <= 1
    for group, spares in groups.spares.items():
        assert {spare.name for spare in group.spares} == spares
        assert len(spares) == scheme[1]
    assert_recoverable(repository, packs)
    assert_clean(repository)


def assert_recoverable(repository: Repository, packs: dict[PackRef, bytes]) -> None:
    """Whichever one of these is lost."""
    sealed = repository.sealed
    groups = read_groups(sealed)
    for pack, data in packs.items():
        gone = lose(sealed.store, [found.key for found in sealed.store.list(key_of(pack))])
        assert recover_pack(sealed, groups, pack) == data
        for key, content in gone.items():
            sealed.store.put(key, [content])


def parity_of(repository: Repository) -> set[str]:
    return set(keys_of(repository.sealed.store, Kind.PARITY))
