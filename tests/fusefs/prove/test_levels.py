"""What each level of a proof finds, on repositories and guests that are really hurt."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backpoint_fusefs.prove.proving import ProveTools, prove_point
from backpoint_repo.format import Kind
from backpoint_repo.point import Point
from backpoint_repo.point_proof import newest_proofs, put_proof
from backpoint_repo.point_structure import StructureProof
from backpoint_repo.proof import Level, Proof
from backpoint_repo.repository import Repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.contract import Store
from backpoint_repo.store.memory import MemoryStore
from guest_disks import build_data_disk
from guest_disks.partition import mounted
from small_repository import assert_clean, back_up, keys_of, new_repository, reopened
from synthetic_disk import random_disk

MIB = 1 << 20


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with ext4 and some files."""
    disk = tmp_path_factory.mktemp("guest") / "disk.raw"
    build_data_disk(disk, 48 * MIB, seed=3, files_total_bytes=4 * MIB, filesystem="ext4")
    return disk


def prove(repository: Repository, point: Point, level: Level = Level.TREES) -> Proof:
    fresh = reopened(repository)
    (chosen,) = [one for one in fresh.catalog.refresh() if one.point_id == point.point_id]
    tools = ProveTools(fresh, StructureProof(fresh), 5, random.Random(1), lambda _: None)
    return prove_point(tools, chosen, level, lambda _: None).proof


def hurt(store: Store, key: str, offset: int) -> None:
    data = bytearray(store.get(key))
    data[offset] ^= 0x10
    store.delete(key)
    store.put(key, [data])


def test_a_good_guest_is_proved_level_by_level(guest: Path) -> None:
    """And the proof says no more than was tried; kept, it is the point's newest."""
    repository = new_repository(MemoryStore())
    point = back_up(repository, "vm", RawImage(guest))
    for level in (Level.STRUCTURE, Level.DATA, Level.TREES):
        proof = prove(repository, point, level)
        assert proof.ok
        assert proof.proved_level is level
        assert [step.level.rank for step in proof.steps] == list(range(level.rank + 1))
    assert "5 files read" in proof.steps[-1].detail
    put_proof(repository.sealed, proof)
    (kept,) = newest_proofs(repository.sealed).values()
    assert isinstance(kept, Proof)
    assert kept.steps == proof.steps
    assert_clean(repository)


def test_a_missing_pack_fails_the_structure() -> None:
    """Nothing is read for that, and nothing above it is tried."""
    store = MemoryStore()
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(2 * MIB, 1))
    store.delete(keys_of(store, Kind.DATA_PACK)[0])
    proof = prove(repository, point)
    assert (proof.proved_level, proof.failed_level) == (None, Level.STRUCTURE)
    assert len(proof.steps) == 1
    assert "are in no pack" in proof.steps[0].detail


def test_a_flipped_bit_fails_the_data_only() -> None:
    """The structure is whole; reading tells."""
    store = MemoryStore()
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(2 * MIB, 1))
    hurt(store, keys_of(store, Kind.DATA_PACK)[0], MIB)
    proof = prove(repository, point)
    assert (proof.proved_level, proof.failed_level) == (Level.STRUCTURE, Level.DATA)
    assert "cannot be read" in proof.steps[1].detail


def test_a_broken_map_fails_the_structure() -> None:
    """A node that does not open is told with its disk."""
    store = MemoryStore()
    repository = new_repository(store)
    point = back_up(repository, "vm", random_disk(2 * MIB, 1))
    (pack,) = keys_of(store, Kind.NODE_PACK)
    hurt(store, pack, 100)
    proof = prove(repository, point)
    assert proof.failed_level is Level.STRUCTURE
    assert "disk0: its map has a gap" in proof.steps[0].detail


def test_a_wiped_folder_fails_the_trees(guest: Path, tmp_path: Path) -> None:
    """All bytes are what was backed up; the guest itself was broken then."""
    disk = tmp_path / "broken.raw"
    disk.write_bytes(guest.read_bytes())
    with disk.open("r+b") as file:
        # The group descriptors and what lies behind them: inode tables, the root folder.
        file.seek(MIB + 4096)
        file.write(b"\xa5" * (2 * MIB))
    repository = new_repository(MemoryStore())
    point = back_up(repository, "vm", RawImage(disk))
    proof = prove(repository, point)
    assert (proof.proved_level, proof.failed_level) == (Level.DATA, Level.TREES)


def test_a_disk_without_files_says_so(tmp_path: Path) -> None:
    """Nothing to list is no failure, and is not passed over in silence."""
    repository = new_repository(MemoryStore())
    point = back_up(repository, "vm", random_disk(2 * MIB, 1))
    proof = prove(repository, point)
    assert proof.ok
    assert "0 volumes list" in proof.steps[-1].detail
    assert any("no filesystem" in note for note in proof.steps[-1].notes)


def test_every_file_may_be_drawn(guest: Path) -> None:
    """More files asked for than there are: all are read, whatever their names."""
    with mounted(guest, read_only=True) as root:
        files = sum(path.is_file() and not path.is_symlink() for path in root.rglob("*"))
    repository = new_repository(MemoryStore())
    back_up(repository, "vm", RawImage(guest))
    tools = ProveTools(
        repository, StructureProof(repository), 10_000, random.Random(1), lambda _: None
    )
    (chosen,) = repository.catalog.refresh()
    proof = prove_point(tools, chosen, Level.TREES, lambda _: None).proof
    assert f"{files} files read" in proof.steps[-1].detail
