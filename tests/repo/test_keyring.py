"""What each credential can derive: the agent all but the owner's private key."""

from __future__ import annotations

import secrets

import pytest

from backpoint_repo.errors import ObjectDamaged, OwnerKeyNeeded
from backpoint_repo.keyring import (
    OWNER_PUBLIC_SIZE,
    SEALED_DATA_KEY_SIZE,
    Keyring,
    data_key_id,
    owner_public_of,
)

SEED, SECRET, REPOSITORY = bytes(range(32)), bytes(32), b"r" * 16


@pytest.fixture(scope="module")
def owner() -> Keyring:
    return Keyring(SECRET, owner_public_of(SEED), SEED)


def test_sizes_are_those_of_the_format(owner: Keyring) -> None:
    assert len(owner.owner_public) == OWNER_PUBLIC_SIZE
    assert len(owner.seal_data_key(bytes(32), REPOSITORY)) == SEALED_DATA_KEY_SIZE


def test_derived_keys_differ_and_are_stable(owner: Keyring) -> None:
    agent = Keyring(SECRET, owner.owner_public)
    names = ("chunk_id_key", "node_id_key", "cut_key", "meta_key", "config_key")
    assert [getattr(owner, name) for name in names] == [getattr(agent, name) for name in names]
    assert len({getattr(owner, name) for name in names} | {SECRET}) == 6


def test_only_the_owner_opens_data_keys(owner: Keyring) -> None:
    agent = Keyring(SECRET, owner.owner_public)
    data_key = secrets.token_bytes(32)
    sealed = agent.seal_data_key(data_key, REPOSITORY)
    assert owner.open_data_key(sealed, REPOSITORY) == data_key
    with pytest.raises(OwnerKeyNeeded):
        agent.open_data_key(sealed, REPOSITORY)
    assert sealed != agent.seal_data_key(data_key, REPOSITORY), "sealing is randomised"


@pytest.mark.parametrize("place", [0, 500, 1100, 1119, 1120, 1140, SEALED_DATA_KEY_SIZE - 1])
def test_an_altered_data_key_does_not_open(owner: Keyring, place: int) -> None:
    sealed = bytearray(owner.seal_data_key(bytes(32), REPOSITORY))
    sealed[place] ^= 1
    with pytest.raises(ObjectDamaged):
        owner.open_data_key(bytes(sealed), REPOSITORY)
    assert data_key_id(bytes(sealed)) != data_key_id(owner.seal_data_key(bytes(32), REPOSITORY))


@pytest.mark.parametrize("sealed", [b"", bytes(10), bytes(SEALED_DATA_KEY_SIZE),
                                    b"\xff" * SEALED_DATA_KEY_SIZE, bytes(1120)])  # fmt: skip
def test_garbage_is_no_data_key(owner: Keyring, sealed: bytes) -> None:
    with pytest.raises(ObjectDamaged):
        owner.open_data_key(sealed, REPOSITORY)


def test_bound_to_repository_and_owner(owner: Keyring) -> None:
    sealed = owner.seal_data_key(bytes(32), REPOSITORY)
    with pytest.raises(ObjectDamaged):
        owner.open_data_key(sealed, b"s" * 16)
    other = bytes(31) + b"x"
    with pytest.raises(ObjectDamaged):
        Keyring(SECRET, owner_public_of(other), other).open_data_key(sealed, REPOSITORY)


def test_keys_are_not_shown(owner: Keyring) -> None:
    assert repr(owner) == "Keyring()"
