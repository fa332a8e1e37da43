"""Scenes of writing: a repository is made, points are stored, and what lies beside them is put.

What takes away again is in `power_cut_upkeep.py`.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from backpoint_repo import catalog, catalog_merge
from backpoint_repo.errors import WrongPassphrase
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.index_segment import PackRef
from backpoint_repo.key_slots import DAMAGED, add_slot, list_slots, revoke_slot
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases, revoke
from backpoint_repo.point_hold import Hold, drop_hold, put_hold, read_holds
from backpoint_repo.point_proof import put_proof, read_proofs
from backpoint_repo.policy import Policy, put_policy, read_policy
from backpoint_repo.proof import Level, Proof, Step
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.store.local import LocalStore
from faults.power_cut_journal import Journal
from faults.power_cut_scenes import (
    CHANGES,
    POINT,
    REPOSITORY,
    Scene,
    disk_of,
    initialised,
    opened,
    stored,
)
from small_repository import CHEAP, NOON, back_up

PNG: Final = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
HOLDER: Final = "00000000000000aa"
OLD, NEW = "battery staple", "tr0ub4dor"


def nothing(root: Path) -> None:
    """There is no repository yet."""


def made(root: Path) -> None:
    """An empty one."""
    initialised(root)


def first(root: Path) -> None:
    """One with a point."""
    initialised(root)
    stored(root, "1 0")


def two(root: Path) -> None:
    """And an incremental one."""
    first(root)
    stored(root, "1 1", CHANGES)


def begun(journal: Journal, *labels: str) -> None:
    """What was certain before the scene began."""
    journal.promise(REPOSITORY)
    for label in labels:
        journal.promise(POINT + label)


def point_of(repository: Repository, label: str) -> bytes:
    """Its id."""
    return next(point.point_id for point in repository.catalog.refresh() if point.label == label)


def _init(root: Path, journal: Journal) -> None:
    initialised(root)
    begun(journal)


def _backup(root: Path, journal: Journal) -> None:
    begun(journal)
    stored(root, "1 0")
    begun(journal, "1 0")


def _increment(root: Path, journal: Journal) -> None:
    begun(journal, "1 0")
    stored(root, "1 1", CHANGES)
    begun(journal, "1 1")


def _by_another(root: Path, journal: Journal) -> None:
    """The same content, of another VM: all that is there is used again."""
    initialised(root)
    begun(journal)
    back_up(opened(root), "other", disk_of("1 1"), label="1 1")
    begun(journal, "1 1")


def _hold(root: Path, journal: Journal) -> None:
    begun(journal, "1 0")
    repository = opened(root)
    point = point_of(repository, "1 0")
    put_hold(repository.sealed, Hold(point, HOLDER, "why", NOON))
    journal.promise("held")
    stored(root, "1 1", CHANGES)
    journal.promise("letting go")
    drop_hold(repository.sealed, point, HOLDER)
    journal.promise("let go")


def _held(root: Path, promised: frozenset[str]) -> None:
    holds = read_holds(opened(root).sealed)
    assert holds or "held" not in promised or "letting go" in promised
    assert not (holds and "let go" in promised)


def _hold_again(root: Path) -> None:
    first(root)
    repository = opened(root)
    put_hold(repository.sealed, Hold(point_of(repository, "1 0"), HOLDER, "again", NOON))
    assert len(read_holds(opened(root).sealed)) == 1


def _prove(root: Path, journal: Journal) -> None:
    begun(journal, "1 0")
    repository = opened(root)
    steps = (Step(Level.STRUCTURE, True, 1.0), Step(Level.DATA, True, 1.0))
    point = point_of(repository, "1 0")
    put_proof(repository.sealed, Proof(point, NOON, steps, "backpoint", "host", 2.0), PNG)
    journal.promise("proved")


def _proved(root: Path, promised: frozenset[str]) -> None:
    repository = opened(root)
    history = read_proofs(repository.sealed, point_of(repository, "1 0"))
    assert not history.unreadable
    assert history.proofs or "proved" not in promised


def _prove_again(root: Path) -> None:
    _prove(root, Journal())


def _second_slot(root: Path) -> None:
    first(root)
    add_slot(opened(root).sealed, OLD, "second", CHEAP, NOON)


def _change_key(root: Path, journal: Journal) -> None:
    begun(journal, "1 0")
    sealed = opened(root).sealed
    (old,) = [slot for slot in list_slots(sealed) if slot.label == "second"]
    add_slot(sealed, NEW, "third", CHEAP, NOON)
    journal.promise(NEW)
    revoke_slot(sealed, old.slot_id, force=False)
    journal.promise("revoked")


def _opens(root: Path, secret: str) -> bool:
    try:
        open_repository(LocalStore(root), Passphrase(secret))
    except WrongPassphrase:
        return False
    return True


def _keys(root: Path, promised: frozenset[str]) -> None:
    assert _opens(root, NEW) or NEW not in promised
    assert _opens(root, NEW) or _opens(root, OLD), "there is a way in all the time"
    assert not (_opens(root, OLD) and "revoked" in promised), "a revoked slot is back"
    assert all(slot.method != DAMAGED for slot in list_slots(opened(root).sealed))


def _change_key_again(root: Path) -> None:
    sealed = opened(root).sealed
    for slot in list_slots(sealed):
        if slot.label != "first passphrase":
            revoke_slot(sealed, slot.slot_id, force=False)
    add_slot(sealed, NEW, "fourth", CHEAP, NOON)
    _keys(root, frozenset({NEW, "revoked"}))


def _many(root: Path, journal: Journal) -> None:
    """Each point makes a catalogue object, or merges those there are."""
    begun(journal, "1 0")
    for label in ("2 0", "3 0"):
        stored(root, label)
        begun(journal, label)


def _many_again(root: Path) -> None:
    stored(root, "4 0")


def _set_policy(root: Path, journal: Journal) -> None:
    begun(journal, "1 0")
    repository = opened(root)
    for days in (7, 14):
        put_policy(repository.sealed, Policy(days * 86400.0, (4, 2)), repository.clock)
        journal.promise(f"{days}")


def _policy_holds(root: Path, promised: frozenset[str]) -> None:
    days = max((int(what) for what in promised if what.isdecimal()), default=0)
    assert read_policy(opened(root).sealed).min_age_s >= days * 86400.0


def _lease(root: Path, journal: Journal) -> None:
    """One that is refreshed and given back, one that is ended by somebody else."""
    begun(journal, "1 0")
    repository = opened(root)
    sealed = repository.sealed
    own = Lease(sealed, b"own" + bytes(13), LeaseTerms(MOUNT, 0), repository.clock)
    journal.promise("own")
    own.refresh()
    own.refresh()
    lost = Lease(sealed, b"lost" + bytes(12), LeaseTerms(MOUNT, 0), repository.clock)
    assert revoke(sealed, b"lost" + bytes(12), secrets.token_bytes(16), NOON)
    journal.promise("revoked")
    assert not lost.lost
    own.release()
    journal.promise("released")


def _leases_hold(root: Path, promised: frozenset[str]) -> None:
    leases = read_leases(opened(root).sealed)
    assert not [lease.problem for lease in leases if lease.problem]
    sessions = {lease.session.rstrip(b"\0") for lease in leases}
    assert b"lost" not in sessions or "revoked" not in promised
    assert b"own" not in sessions or "released" not in promised


def _leases_again(root: Path) -> None:
    sealed = opened(root).sealed
    for lease in read_leases(sealed):
        revoke(sealed, lease.session, bytes(16), NOON)
    assert not read_leases(sealed)
    two(root)


def every_copy(repository: Repository) -> list[tuple[bytes, PackRef]]:
    """(content id, pack) of all that is indexed."""
    repository.index.refresh()
    return [
        (row.tobytes(), table.packs[number])
        for table in repository.index.tables()
        for row, number in zip(table.ids(), table.pack_numbers.tolist(), strict=True)
    ]


def _mark_and_heal(root: Path, journal: Journal) -> None:
    """All chunks are said to be damaged, and the next backup stores them anew."""
    begun(journal, "1 0")
    repository = opened(root)
    mark_damaged(repository.sealed, every_copy(repository), NOON)
    stored(root, "1 1", CHANGES)
    begun(journal, "1 1")


SCENES: Final = {
    "init": Scene(nothing, _init, first),
    "backup": Scene(made, _backup, first),
    "increment": Scene(first, _increment, two),
    "hold": Scene(first, _hold, _hold_again, _held),
    "proof": Scene(first, _prove, _prove_again, _proved),
    "key change": Scene(_second_slot, _change_key, _change_key_again, _keys),
    "catalogue": Scene(
        first,
        _many,
        _many_again,
        patches=((catalog, "COMPACT_AFTER", 0), (catalog_merge, "MERGE_AFTER", 2)),
    ),
    "policy": Scene(first, _set_policy, two, _policy_holds),
    "lease": Scene(first, _lease, _leases_again, _leases_hold),
    "damage marks": Scene(first, _mark_and_heal, two),
}
KILLED: Final = ("init", "backup", "increment")
"""Scenes that a second process can take up where the first was killed."""
BY_ANOTHER: Final = Scene(nothing, _by_another, two)
