"""Slots: added, listed, revoked; hostile and damaged ones cost nothing but themselves."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from backpoint_repo.errors import ObjectDamaged, UsageError, WrongPassphrase
from backpoint_repo.format import HEADER, Kind, header, object_key
from backpoint_repo.key_slots import (
    PASSPHRASE,
    RECOVERY,
    ScryptCost,
    add_slot,
    list_slots,
    open_with,
    revoke_slot,
)
from backpoint_repo.record import Record, encode_record
from backpoint_repo.recovery_key import format_recovery_key, new_recovery_key
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.store.memory import MemoryStore
from small_repository import CHEAP, NOON, keys_of, new_repository

FIRST = "correct horse"


def rewrite(repository: Repository, slot_id: str, **changes: object) -> None:
    """Put other fields into a slot, as whoever can write to the store may."""
    store, key = repository.sealed.store, object_key(Kind.SLOT, slot_id)
    fields = Record.decode(store.get(key)[HEADER.size :], key).plain()
    store.delete(key)
    store.put(key, [header(Kind.SLOT), encode_record({**fields, **changes})])


def opens(repository: Repository, text: str) -> bool:
    keyring = open_with(repository.sealed.store, repository.config, text)
    return keyring == repository.sealed.keyring


def test_every_slot_opens_the_same_keys(repository: Repository) -> None:
    recovery = format_recovery_key(new_recovery_key())
    for at, text in enumerate(["second", "žluťoučký kůň", recovery]):
        add_slot(repository.sealed, text, f"slot {at}", CHEAP, NOON + 1 + at)
    for text in (FIRST, "second", "žluťoučký kůň", recovery, recovery.lower()):
        assert opens(repository, text)
    slots = list_slots(repository.sealed)
    labels = ["first passphrase", "slot 0", "slot 1", "slot 2"]
    assert [slot.label for slot in slots] == labels
    assert [slot.method for slot in slots] == [PASSPHRASE] * 3 + [RECOVERY]
    assert [slot.created for slot in slots] == [NOON, NOON + 1, NOON + 2, NOON + 3]


@pytest.mark.parametrize("text", ["Correct horse", "correct horse ", "", "\udcff", "x" * 100_000])
def test_wrong_passphrases(repository: Repository, text: str) -> None:
    with pytest.raises(WrongPassphrase, match="passphrase"):
        open_with(repository.sealed.store, repository.config, text)


def test_a_passphrase_of_any_bytes_opens_again(repository: Repository) -> None:
    """A passphrase file need not be UTF-8; such bytes arrive as surrogates."""
    text = b"caf\xe9".decode("utf-8", "surrogateescape")
    add_slot(repository.sealed, text, "latin", CHEAP, NOON)
    assert opens(repository, text)


def test_wrong_recovery_key(repository: Repository) -> None:
    with pytest.raises(WrongPassphrase, match="recovery key"):
        open_with(
            repository.sealed.store, repository.config, format_recovery_key(new_recovery_key())
        )


def test_empty_passphrase_is_refused(repository: Repository) -> None:
    with pytest.raises(UsageError):
        add_slot(repository.sealed, "", "", CHEAP, NOON)


def test_a_revoked_slot_opens_nothing(repository: Repository) -> None:
    slot = add_slot(repository.sealed, "second", "", CHEAP, NOON)
    with pytest.raises(UsageError, match=slot.slot_id):
        revoke_slot(repository.sealed, "", force=False)
    with pytest.raises(UsageError):
        revoke_slot(repository.sealed, "not hex", force=False)
    assert revoke_slot(repository.sealed, slot.slot_id[:10], force=False) == slot
    with pytest.raises(WrongPassphrase):
        open_with(repository.sealed.store, repository.config, "second")
    assert opens(repository, FIRST)


def test_the_last_slot_stays(repository: Repository) -> None:
    (slot,) = list_slots(repository.sealed)
    with pytest.raises(UsageError, match="last"):
        revoke_slot(repository.sealed, slot.slot_id, force=False)
    revoke_slot(repository.sealed, slot.slot_id, force=True)
    assert keys_of(repository.sealed.store, Kind.SLOT) == []


def test_a_slot_of_another_repository_opens_nothing(repository: Repository) -> None:
    other = new_repository(MemoryStore())
    (key,) = keys_of(other.sealed.store, Kind.SLOT)
    for own in keys_of(repository.sealed.store, Kind.SLOT):
        repository.sealed.store.delete(own)
    repository.sealed.store.put(key, [other.sealed.store.get(key)])
    with pytest.raises(WrongPassphrase):
        open_with(repository.sealed.store, repository.config, FIRST)


def test_a_slot_under_another_name_opens_nothing(repository: Repository) -> None:
    store = repository.sealed.store
    (key,) = keys_of(store, Kind.SLOT)
    store.put(object_key(Kind.SLOT, "0" * 16), [store.get(key)])
    store.delete(key)
    with pytest.raises(WrongPassphrase):
        open_with(store, repository.config, FIRST)


@pytest.mark.parametrize(
    ("n", "p"),
    [(1 << 20, 1), (1 << 21, 1), (1 << 40, 1), (1 << 63, 1), (0, 1), (1, 1), (3, 1), (2, 0),
     (2, 17), (2, 1 << 30), (-2, 1), (2, -1), (2.0, 1), (None, 1), ("2", 1), (True, 1)],
)  # fmt: skip
def test_absurd_scrypt_parameters_are_refused_at_once(
    repository: Repository, n: object, p: object
) -> None:
    (slot,) = list_slots(repository.sealed)
    rewrite(repository, slot.slot_id, n=n, p=p)
    tracemalloc.start()
    started = time.monotonic()
    with pytest.raises(ObjectDamaged, match=slot.slot_id):
        open_with(repository.sealed.store, repository.config, FIRST)
    assert time.monotonic() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


BROKEN: list[dict[str, object]] = [
    {"wrapped": b"short"},
    {"wrapped": None},
    {"salt": b"short"},
    {"method": 7},
    {"n": 1 << 40},
]


@pytest.mark.parametrize("changes", BROKEN)
def test_a_broken_slot_does_not_lock_out_the_others(
    repository: Repository, changes: dict[str, object]
) -> None:
    """Whichever of the two is listed first."""
    second = add_slot(repository.sealed, "second", "", CHEAP, NOON)
    rewrite(repository, second.slot_id, **changes)
    assert opens(repository, FIRST)
    with pytest.raises(WrongPassphrase, match=second.slot_id):
        open_with(repository.sealed.store, repository.config, "second")
    third = add_slot(repository.sealed, "third", "", CHEAP, NOON)
    assert opens(repository, "third")
    (first,) = [slot for slot in list_slots(repository.sealed) if slot.label.startswith("first")]
    rewrite(repository, first.slot_id, **changes)
    assert opens(repository, "third")
    rewrite(repository, third.slot_id, **changes)
    with pytest.raises(ObjectDamaged):
        open_with(repository.sealed.store, repository.config, FIRST)


@pytest.mark.parametrize("data", [b"", b"garbage", header(Kind.CONFIG) + b"\x80",
                                  header(Kind.SLOT) + b"\xc1", header(Kind.SLOT)])  # fmt: skip
def test_garbage_among_the_slots_is_listed_and_can_be_revoked(
    repository: Repository, data: bytes
) -> None:
    repository.sealed.store.put(object_key(Kind.SLOT, "ffff0000ffff0000"), [data])
    opened = open_repository(repository.sealed.store, Passphrase(FIRST))
    slots = list_slots(opened.sealed)
    assert {slot.slot_id: slot.method for slot in slots}["ffff0000ffff0000"] == "damaged"
    (good,) = [slot for slot in slots if slot.method == PASSPHRASE]
    with pytest.raises(UsageError, match="last"):
        revoke_slot(opened.sealed, good.slot_id, force=False)
    revoke_slot(opened.sealed, "ffff", force=False)
    assert list_slots(opened.sealed) == [good]


def test_default_cost_is_not_cheap() -> None:
    assert 128 * 8 * ScryptCost().n * ScryptCost().p >= 128 << 20
