"""Repositories for tests: cheap key slots, small chunks, a clock that stands where it is put.

Knows how a point is made and read back through the public calls; which content matters is the
test's business.
"""

from __future__ import annotations

from collections.abc import Sequence

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.check import check_repository
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.credential import AgentCredential
from backpoint_repo.format import FOLDERS, Kind
from backpoint_repo.key_slots import ScryptCost
from backpoint_repo.point import Disk, Point
from backpoint_repo.repository import Passphrase, Repository, create_repository, open_repository
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.store.contract import Store

PASSPHRASE = Passphrase("correct horse")
CHEAP = ScryptCost(n=2, p=1)
SMALL_CHUNKS = ChunkParameters(avg_blocks=4, min_blocks=1, max_blocks=16, hole_blocks=4)
NOON = 1_700_000_000.0


class StandingClock:
    """Seconds since 1970, as set."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def new_repository(
    store: Store, clock: StandingClock | None = None, chunks: ChunkParameters = SMALL_CHUNKS
) -> Repository:
    """Made and opened as the owner."""
    return create_repository(store, PASSPHRASE, chunks, cost=CHEAP, clock=clock or StandingClock())


def reopened(repository: Repository) -> Repository:
    """The same repository as another process of the owner sees it."""
    return open_repository(repository.sealed.store, PASSPHRASE, repository.clock)


def as_agent(repository: Repository) -> Repository:
    """The same repository through the agent credential."""
    credential = AgentCredential.of(repository.config, repository.sealed.keyring.secret)
    return open_repository(repository.sealed.store, credential, repository.clock)


def back_up(
    repository: Repository,
    vm: str,
    *disks: ImageSource,
    changed: Sequence[tuple[int, int]] | None = None,
    time: float | None = None,
    label: str = "",
) -> Point:
    """One point; the disks are called disk0, disk1, ..."""
    with repository.begin_backup(vm) as session:
        for number, disk in enumerate(disks):
            session.store_disk(DiskJob(f"disk{number}", disk, changed), lambda _: None)
        return session.publish(time=time, label=label)


def read_disk(repository: Repository, disk: Disk, piece: int = 1 << 20) -> bytes:
    """All bytes of a stored disk."""
    reader = repository.open_disk(disk, ChunkCache(64 << 20))
    return b"".join(reader.read(at, piece) for at in range(0, disk.size, piece))


def assert_clean(repository: Repository) -> None:
    """Every object, tree and blob is whole, as a new process sees it."""
    report = check_repository(reopened(repository), read_share=1.0)
    assert report.clean, report


def keys_of(store: Store, kind: Kind) -> list[str]:
    """Keys of all objects in a kind's folder."""
    return sorted(found.key for found in store.list(f"{FOLDERS[kind]}/"))
