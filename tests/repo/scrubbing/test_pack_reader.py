"""A flipped bit in each part of a pack, by either credential; what is flaky, unreadable or gone."""

from __future__ import annotations

import random

import pytest

from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.errors import RepositoryError
from backpoint_repo.format import Kind
from backpoint_repo.pack import PackBuilder
from backpoint_repo.repository import Repository
from backpoint_repo.scrubbing.pack_reader import (
    PIECE,
    PackReader,
    PackVerdict,
    verdict_without_directory,
)
from backpoint_repo.store.memory import MemoryStore
from repo.scrubbing.scrub_scene import WatchedStore, altered, fill, over, pack_of
from small_repository import as_agent, back_up, keys_of, new_repository, reopened
from synthetic_disk import SyntheticDisk

OWNER, AGENT = "owner", "agent"
PARTS = {
    "magic": 0,
    "kind": 6,
    "key id of the first blob": 9,
    "counter": 8 + 16,
    "codec": 8 + 24,
    "reserved bytes of a blob": 8 + 26,
    "ciphertext": 8 + 40,
    "middle": 100_000,
    "directory": -100,
    "length of the directory": -16,
    "trailer": -1,
}
NODE_PARTS = {name: at for name, at in PARTS.items() if name != "middle"}


@pytest.fixture
def watched() -> WatchedStore:
    return WatchedStore(MemoryStore())


@pytest.fixture
def repository(watched: WatchedStore) -> Repository:
    filled = new_repository(watched)
    fill(filled, "web")
    return filled


def verdict_of(repository: Repository, key: str) -> PackVerdict:
    reader = PackReader(repository.sealed, repository.nodes, repository.chunks)
    try:
        directory = reader.directory(pack_of(key))
    except RepositoryError as error:
        return verdict_without_directory(pack_of(key), error)
    return reader.read(pack_of(key), directory)


def as_who(repository: Repository, who: str) -> Repository:
    return as_agent(repository) if who == AGENT else reopened(repository)


@pytest.mark.parametrize("who", [OWNER, AGENT])
@pytest.mark.parametrize(
    ("kind", "part"),
    [
        *((Kind.DATA_PACK, part) for part in PARTS),
        *((Kind.NODE_PACK, part) for part in NODE_PARTS),
    ],
)
def test_a_flipped_bit_anywhere_is_found(
    repository: Repository, who: str, kind: Kind, part: str
) -> None:
    (key,) = keys_of(repository.sealed.store, kind)
    good = verdict_of(as_who(repository, who), key)
    assert good.whole
    assert not good.problem
    assert good.blobs > 0
    altered(repository.sealed.store, key, PARTS[part])
    verdict = verdict_of(as_who(repository, who), key)
    if part in {"magic", "kind", "directory", "length of the directory", "trailer"}:
        assert verdict.lost is not None
    else:
        assert len(verdict.bad) == 1
        assert verdict.whole
        assert verdict.blobs == good.blobs
    assert key in verdict.problem


def test_reserved_bytes_of_the_trailer_mean_nothing(repository: Repository) -> None:
    (key,) = keys_of(repository.sealed.store, Kind.DATA_PACK)
    altered(repository.sealed.store, key, -11)
    assert not verdict_of(reopened(repository), key).problem


def test_only_the_owner_finds_what_an_agent_forged(repository: Repository) -> None:
    """Good blobs under wrong ids: the digests are right."""
    sealed = repository.sealed
    (key,) = keys_of(sealed.store, Kind.DATA_PACK)
    directory = sealed.directory(*pack_of(key))
    forged = PackBuilder(Kind.DATA_PACK, b"f" * 16, bytes(16))
    start = int(directory.offsets[0])
    blob = sealed.store.get_range(key, start, int(directory.lengths[0]))
    forged.add(directory.ids[1].tobytes(), blob, int(directory.plain_lengths[0]))
    pieces = forged.finish(directory.data_keys, sealed.keyring.meta_key, sealed.packer)
    sealed.store.put(forged.key, pieces)
    assert not verdict_of(as_agent(repository), forged.key).problem
    assert list(verdict_of(reopened(repository), forged.key).bad) == [directory.ids[1].tobytes()]


@pytest.mark.parametrize("who", [OWNER, AGENT])
def test_wrong_once_is_not_wrong(watched: WatchedStore, repository: Repository, who: str) -> None:
    (key,) = keys_of(watched, Kind.DATA_PACK)
    opened = as_who(repository, who)
    watched.once = {key}
    verdict = verdict_of(opened, key)
    assert not watched.once
    assert verdict.whole
    assert not verdict.problem
    (said,) = verdict.flaky
    assert key in said


def test_what_cannot_be_read_now_is_not_wrong(
    watched: WatchedStore, repository: Repository
) -> None:
    (key,) = keys_of(watched, Kind.DATA_PACK)
    watched.unavailable = {key}
    verdict = verdict_of(repository, key)
    assert verdict.unreadable is not None
    assert "Input/output error" in verdict.unreadable
    assert not verdict.whole
    assert not verdict.problem


def test_a_pack_that_goes_meanwhile_is_nothing(
    watched: WatchedStore, repository: Repository
) -> None:
    (key,) = keys_of(watched, Kind.DATA_PACK)
    watched.vanishing = {key}
    assert verdict_of(reopened(repository), key) == PackVerdict(pack_of(key), gone=True)
    assert verdict_of(reopened(repository), key) == PackVerdict(pack_of(key), gone=True)


def test_a_pack_is_read_in_pieces() -> None:
    """Never more than a few MiB at once, each byte of a blob once, and it is asked before."""
    watched = WatchedStore(MemoryStore())
    chunks = ChunkParameters(avg_blocks=64, min_blocks=32, max_blocks=512, hole_blocks=4)
    repository = new_repository(watched, chunks=chunks)
    disk = SyntheticDisk(12 << 20)
    disk.write(0, random.Random(3).randbytes(12 << 20))
    back_up(repository, "web", disk)
    (key,) = keys_of(watched, Kind.DATA_PACK)
    asked: list[int] = []
    reader = PackReader(repository.sealed, repository.nodes, repository.chunks, asked.append)
    directory = reader.directory(pack_of(key))
    assert verdict_of(repository, key).whole, "its data key is known from now on"
    watched.asked.clear()
    end_of_blobs = int(directory.offsets[-1]) + int(directory.lengths[-1])
    verdict = reader.read(pack_of(key), directory)
    assert verdict.whole
    pieces = [(offset, length) for _, offset, length in watched.asked]
    assert max(length for _, length in pieces) <= PIECE
    assert len(pieces) >= 3
    covered = sorted(pieces)
    assert covered[0][0] == 8
    ends = [offset + length for offset, length in covered]
    assert ends == [*(offset for offset, _ in covered[1:]), end_of_blobs]
    assert asked == [length for _, length in pieces]
    assert verdict.read_bytes == sum(asked)


def test_a_blob_that_claims_to_be_huge_is_not_fetched() -> None:
    watched = WatchedStore(MemoryStore())
    repository = new_repository(watched)
    sealed = repository.sealed
    builder = PackBuilder(Kind.DATA_PACK, b"h" * 16, bytes(16))
    builder.add(b"i" * 32, bytes(40 << 20), 4096)
    watched.put(builder.key, builder.finish({}, sealed.keyring.meta_key, sealed.packer))
    verdict = verdict_of(over(watched), builder.key)
    assert list(verdict.bad) == [b"i" * 32]
    assert "impossible size" in verdict.problem
    assert max(length for _, _, length in watched.asked) < 1 << 20
