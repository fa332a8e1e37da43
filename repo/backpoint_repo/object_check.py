"""Does every object that is no pack and no point open, and say what one of its kind must say?

Knows each kind just as far as its own readers do. Objects that go while we look are none: leases
are refreshed, segments merged, trash emptied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from backpoint_repo.check_report import DamagedObject
from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind, object_key
from backpoint_repo.index_segment import decode_table
from backpoint_repo.key_slots import verify_slot
from backpoint_repo.lease_book import read_leases
from backpoint_repo.parity.group import Group, column_digest, columns_of, digest_at
from backpoint_repo.parity.spare_object import read_column, read_group
from backpoint_repo.phase_progress import PhaseProgress
from backpoint_repo.point_note import verify_note
from backpoint_repo.point_proof import verify_proof_note
from backpoint_repo.policy import read_policy
from backpoint_repo.scrubbing.reading_book import read_rows
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.trash import pack_of


def check_objects(
    sealed: SealedStore, progress: PhaseProgress, *, read_spares: bool = False
) -> tuple[list[DamagedObject], list[str]]:
    """What is wrong, and why others cannot be read now. Raises what listing them raises.

    read_spares: whether those of parity are read in full.
    """
    jobs = [(kind, name) for kind in _VERIFIERS for name in list(sealed.names(kind))]
    progress.phase("objects", len(jobs))
    problems, unreadable = dict[str, str](), list[str]()
    for kind, name in jobs:
        verify: Callable[[], object] = partial(_VERIFIERS[kind], sealed, name)
        if kind is Kind.PARITY and read_spares:
            verify = partial(_read_spare, sealed, name)
        _try(verify, object_key(kind, name), problems, unreadable)
        progress.advance(1)
    # What opens, and still says nothing that those who need it could go by.
    _try(partial(_read_policy, sealed, problems), "policy", problems, unreadable)
    _try(partial(_read_leases, sealed, problems), "leases", problems, unreadable)
    damaged = [DamagedObject(key, problem) for key, problem in problems.items()]
    return damaged, list(dict.fromkeys(unreadable))


def _try(
    verify: Callable[[], object], key: str, problems: dict[str, str], unreadable: list[str]
) -> None:
    try:
        verify()
    except ObjectMissing:
        pass
    except (ObjectDamaged, UnknownFormat) as error:
        problems[key] = str(error)
    except StoreUnavailable as error:
        unreadable.append(str(error))


def _verify_index(sealed: SealedStore, name: str) -> None:
    decode_table(sealed.get(Kind.INDEX, name), object_key(Kind.INDEX, name))


def _verify_trash(sealed: SealedStore, name: str) -> None:
    key, record = object_key(Kind.TRASH, name), sealed.get_record(Kind.TRASH, name)
    if f"{record.natural('epoch'):016x}" != name:
        raise ObjectDamaged(f"{key}: says another epoch than its name")
    if record.optional("swept", int) is not None and f"{record.natural('swept'):016x}" >= name:
        raise ObjectDamaged(f"{key}: says that it is over itself")
    for row in record.items("packs", bytes):
        pack_of(row, key)


def _verify_damage(sealed: SealedStore, name: str) -> None:
    key = object_key(Kind.DAMAGE, name)
    for copy in sealed.get_record(Kind.DAMAGE, name).items("copies", bytes):
        pack_of(copy[ID_SIZE:], key)


def _verify_note(sealed: SealedStore, name: str) -> None:
    verify_proof_note(sealed, verify_note(sealed, name))


def _verify_spare(sealed: SealedStore, name: str) -> Group:
    if not re.fullmatch(r"[0-9a-f]{32}", name):
        raise ObjectDamaged(f"{object_key(Kind.PARITY, name)}: no name of a spare")
    return read_group(sealed, bytes.fromhex(name))


def _read_spare(sealed: SealedStore, name: str) -> None:
    group = _verify_spare(sealed, name)
    (spare,) = [spare for spare in group.spares if spare.name.hex() == name]
    for at in range(columns_of(group.size, group.column)):
        if column_digest(read_column(sealed, group, spare, at)) != digest_at(spare.digests, at):
            raise ObjectDamaged(f"{spare.key}: column {at} is not what was stored")


def _opens(kind: Kind) -> Callable[[SealedStore, str], object]:
    return lambda sealed, name: sealed.get_record(kind, name)


def _read_policy(sealed: SealedStore, problems: dict[str, str]) -> None:
    try:
        read_policy(sealed)
    except (ObjectDamaged, UnknownFormat) as error:
        problems.setdefault(str(error).partition(": ")[0], str(error))  # the key comes first


def _read_leases(sealed: SealedStore, problems: dict[str, str]) -> None:
    for lease in read_leases(sealed):
        key = object_key(Kind.LEASE, f"{lease.session.hex()}-{lease.number:08x}")
        if lease.problem.startswith(key):
            problems.setdefault(key, lease.problem)


_VERIFIERS: Final[Mapping[Kind, Callable[[SealedStore, str], object]]] = {
    Kind.SLOT: verify_slot,
    Kind.INDEX: _verify_index,
    Kind.LEASE: _opens(Kind.LEASE),
    Kind.TRASH: _verify_trash,
    Kind.DAMAGE: _verify_damage,
    Kind.CATALOG: _opens(Kind.CATALOG),
    Kind.NOTE: _verify_note,
    Kind.POLICY: _opens(Kind.POLICY),
    Kind.READING: read_rows,
    Kind.PARITY: _verify_spare,
}
"""Reads an object of a kind, given its name; raises ObjectDamaged where it is wrong."""
