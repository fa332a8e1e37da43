"""A second place for one repository: same id, same keys, its own points, packs and leases.

What is sealed in one is good in the other, so points are copied without being opened. Decides what
makes a place such a replica (the configuration and the key slots, byte for byte) and what a later
visit brings it: slots that were added. It takes none away: what somebody has done to one place,
with the rights they had there, must not be done to the other as well; what is too many is told.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from backpoint_repo.config import read_config
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    UnknownFormat,
    UsageError,
)
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import CONFIG_KEY, Kind, header, object_key
from backpoint_repo.key_slots import verify_slot
from backpoint_repo.repository import Repository
from backpoint_repo.store.contract import Store


@dataclass(frozen=True)
class Replica:
    """What was done. made: False where it was there already. added: slots put there now. surplus:
    slots that only the replica has; if they were revoked, that is still to be done there. spoiled:
    slots that do not open any more and were left out. All by name."""

    made: bool
    added: tuple[str, ...]
    surplus: tuple[str, ...]
    spoiled: tuple[str, ...]


def replicate(repository: Repository, store: Store) -> Replica:
    """Make `store` a replica of the repository, or bring its key slots up to date.

    Either credential will do. Raises UsageError where another repository is there, or where the
    repository itself is; UnknownFormat, and what a store raises.
    """
    ours = repository.sealed
    refuse_unknown_features(ours.store)
    config = _config_bytes(repository)
    if store.address == ours.store.address:
        raise UsageError(f"{store.address} is the repository itself")
    there = _config_of(store)
    if there is not None and there != config:
        raise UsageError(f"there is another repository at {store.address} already")
    slots, spoiled = _good_slots(repository)
    if not slots:
        raise ObjectDamaged(f"{ours.store.address} has no key slot that could be copied")
    present = _slot_names(store) if there is not None else set()
    added = [name for name, data in slots.items() if _put_slot(store, name, data)]
    # The configuration last: one that nobody can open would make a place unusable.
    if there is None:
        _put_config(store, config, added)
    surplus = sorted(present - slots.keys() - set(spoiled))
    return Replica(there is None, tuple(sorted(added)), tuple(surplus), tuple(spoiled))


def same_keys(one: Repository, other: Repository) -> bool:
    """Whether what is sealed in one is good in the other: it is the same, or a replica of it."""
    ours, theirs = one.sealed, other.sealed
    return (ours.repository_id, ours.keyring.secret, ours.keyring.owner_public) == (
        theirs.repository_id,
        theirs.keyring.secret,
        theirs.keyring.owner_public,
    )


def _config_bytes(repository: Repository) -> bytes:
    """The configuration object as it is stored; it is still the one that was opened."""
    found = read_config(repository.sealed.store)
    if found.verified(repository.sealed.keyring.config_key) != repository.config:
        raise ObjectDamaged(f"{CONFIG_KEY}: is another one than a moment ago")
    return header(Kind.CONFIG) + found.mac + found.record


def _config_of(store: Store) -> bytes | None:
    try:
        return store.get(CONFIG_KEY)
    except ObjectMissing:
        return None


def _good_slots(repository: Repository) -> tuple[dict[str, bytes], list[str]]:
    """Slots as they are stored, by name; and names of those that open nothing."""
    sealed = repository.sealed
    slots, spoiled = dict[str, bytes](), list[str]()
    for name in sorted(sealed.names(Kind.SLOT)):
        try:
            verify_slot(sealed, name)
            slots[name] = sealed.store.get(object_key(Kind.SLOT, name))
        except ObjectMissing:
            continue  # revoked between listing and reading
        except (ObjectDamaged, UnknownFormat):
            spoiled.append(name)
    return slots, spoiled


def _slot_names(store: Store) -> set[str]:
    folder = object_key(Kind.SLOT, "")
    return {found.key.removeprefix(folder) for found in store.list(folder)}


def _put_slot(store: Store, name: str, data: bytes) -> bool:
    """False where it is there."""
    try:
        store.put(object_key(Kind.SLOT, name), [data])
    except ObjectExists:
        return False
    return True


def _put_config(store: Store, config: bytes, added: list[str]) -> None:
    try:
        store.put(CONFIG_KEY, [config])
    except ObjectExists:
        if _config_of(store) == config:
            return  # somebody else made the same replica meanwhile, or the answer was lost
        # Left behind, they would be a stranger's slots in the repository that is here.
        with contextlib.suppress(StoreUnavailable):
            for name in added:
                store.delete(object_key(Kind.SLOT, name))
        raise UsageError(f"there is another repository at {store.address} already") from None
