"""The configuration: readable without a key, believed only with one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.config import read_config
from backpoint_repo.credential import AgentCredential
from backpoint_repo.errors import (
    KeyFault,
    NotARepository,
    ObjectDamaged,
    StoreUnavailable,
    UnknownFormat,
    UsageError,
    WrongPassphrase,
)
from backpoint_repo.format import CONFIG_KEY, FORMAT_VERSION, HEADER, Kind, header
from backpoint_repo.keyring import owner_public_of
from backpoint_repo.record import Record, encode_record
from backpoint_repo.repository import Passphrase, Repository, create_repository, open_repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from faults.failing_store import AFTER, FailingStore
from small_repository import (
    CHEAP,
    PASSPHRASE,
    SMALL_CHUNKS,
    as_agent,
    assert_clean,
    keys_of,
    new_repository,
)

MAC_END = HEADER.size + 32


def overwrite(store: Store, data: bytes) -> None:
    store.delete(CONFIG_KEY)
    store.put(CONFIG_KEY, [data])


def test_made_and_opened(store: Store) -> None:
    made = new_repository(store)
    assert open_repository(store, PASSPHRASE).config == made.config
    assert as_agent(made).config == made.config
    assert made.config.chunks == SMALL_CHUNKS


def test_no_repository_there(store: Store) -> None:
    with pytest.raises(NotARepository):
        open_repository(store, PASSPHRASE)


def test_none_is_made_over_another(store: Store) -> None:
    made = new_repository(store)
    with pytest.raises(UsageError):
        create_repository(store, Passphrase("other"), SMALL_CHUNKS, cost=CHEAP)
    assert len(keys_of(store, Kind.SLOT)) == 1
    assert open_repository(store, PASSPHRASE).config == made.config


class RacedStore(MemoryStore):
    """Shows no configuration until somebody puts one."""

    def size(self, key: str) -> int:
        return super().size("no such key" if key == CONFIG_KEY else key)


def test_of_two_made_at_once_the_loser_leaves_no_slot() -> None:
    store = RacedStore()
    new_repository(store)
    with pytest.raises(UsageError):
        create_repository(store, Passphrase("loser"), SMALL_CHUNKS, cost=CHEAP)
    assert len(keys_of(store, Kind.SLOT)) == 1


def test_a_configuration_whose_answer_was_lost_can_be_opened() -> None:
    """It may have arrived: then the place must not be one that nobody can open."""
    store = MemoryStore()

    def unplugged() -> None:
        raise StoreUnavailable("unplugged")

    failing = FailingStore(store, 2, unplugged, AFTER, only=frozenset({"put"}))
    with pytest.raises(StoreUnavailable):
        new_repository(failing)
    assert_clean(open_repository(store, PASSPHRASE))


def test_wrong_keys(repository: Repository) -> None:
    store, config = repository.sealed.store, repository.config
    agent = AgentCredential.of(config, repository.sealed.keyring.secret)
    with pytest.raises(WrongPassphrase):
        open_repository(store, Passphrase("wrong"))
    with pytest.raises(ObjectDamaged, match="authentication"):
        open_repository(store, AgentCredential.of(config, bytes(32)))
    with pytest.raises(KeyFault):
        open_repository(store, replace(agent, repository_id=bytes(16)))
    with pytest.raises(KeyFault, match="swapped"):
        open_repository(store, replace(agent, owner_digest=bytes(32)))


def with_record(data: bytes, **changes: object) -> bytes:
    fields = Record.decode(data[MAC_END:], "config").plain()
    return data[:MAC_END] + encode_record({**fields, **changes})


ALTERED: list[Callable[[bytes], bytes]] = [
    lambda data: with_record(data, owner_public=owner_public_of(b"attacker".ljust(32))),
    lambda data: with_record(data, avg_blocks=8),
    lambda data: with_record(data, created=0.0),
    lambda data: data[: HEADER.size] + bytes(32) + data[MAC_END:],
    lambda data: data[:MAC_END] + encode_record({**dict.fromkeys("ab")}),
    lambda data: with_record(data, max_blocks=1 << 40),
    lambda data: with_record(data, min_blocks=0),
    lambda data: with_record(data, owner_public=b""),
    lambda data: data[:-1],
    lambda data: data[:MAC_END],
    lambda data: data[: HEADER.size],
    lambda data: b"",
    lambda data: b"garbage" + data,
    lambda data: header(Kind.POINT) + data[HEADER.size :],
    lambda data: data[:MAC_END] + b"\xdd\x00\xff\xff\xff" * 500,
]


@pytest.mark.parametrize("alter", ALTERED, ids=range(len(ALTERED)))
def test_whatever_is_altered_is_noticed(
    repository: Repository, alter: Callable[[bytes], bytes]
) -> None:
    """The owner's key above all: else new backups would be sealed to an attacker."""
    store = repository.sealed.store
    overwrite(store, alter(store.get(CONFIG_KEY)))
    with pytest.raises(ObjectDamaged):
        open_repository(store, PASSPHRASE)
    with pytest.raises(ObjectDamaged):
        as_agent(repository)


def test_another_repositorys_configuration(repository: Repository) -> None:
    other = new_repository(MemoryStore())
    overwrite(repository.sealed.store, other.sealed.store.get(CONFIG_KEY))
    with pytest.raises(WrongPassphrase):
        open_repository(repository.sealed.store, PASSPHRASE)
    with pytest.raises(KeyFault):
        as_agent(repository)


def test_a_newer_format_is_refused(repository: Repository) -> None:
    store = repository.sealed.store
    data = bytearray(store.get(CONFIG_KEY))
    data[7] = FORMAT_VERSION + 1
    overwrite(store, bytes(data))
    with pytest.raises(UnknownFormat, match="newer"):
        read_config(store)


def test_parameters_survive(store: Store) -> None:
    chunks = ChunkParameters.with_average(1 << 20)
    made = new_repository(store, chunks=chunks)
    assert read_config(store).config == replace(made.config, chunks=chunks)
