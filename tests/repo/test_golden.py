"""Golden repositories of every format version stay readable for ever, by every way in.

They were made by tools/make_golden.py of their time. Also read by the second reader, so that the
page cannot drift away from them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpoint_repo.check import check_repository
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.credential import read_credential
from backpoint_repo.errors import OwnerKeyNeeded
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import FOLDERS, FORMAT_VERSION, Kind
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import MOUNT
from backpoint_repo.lease_book import read_leases
from backpoint_repo.parity.group_book import read_groups
from backpoint_repo.parity.group_writer import problem_of
from backpoint_repo.point_hold import read_holds
from backpoint_repo.point_proof import read_proofs, read_screenshot
from backpoint_repo.policy import Policy, read_policy
from backpoint_repo.repository import Credential, Passphrase, Repository, open_repository
from backpoint_repo.scrubbing.reading_book import ReadingBook
from backpoint_repo.scrubbing.readings import OPENED
from backpoint_repo.store.local import LocalStore
from repo.second_reader import SecondReader
from repo.second_reader_keys import by_recovery_key

HOMES = sorted((Path(__file__).parents[1] / "data").glob("golden-v*"))
PIECE = 4 << 20
WHOLE_MAX = 1 << 30
"""Larger disks are compared at the places that hold data."""


@pytest.fixture(params=HOMES, ids=lambda home: str(home.name))
def home(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def expected(home: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((home / "expected.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(autouse=True)
def untouched(home: Path) -> Iterator[None]:
    """Reading changes nothing: the data is part of the source tree."""
    before = _tree(home)
    yield
    assert _tree(home) == before


def test_there_is_one_of_this_version() -> None:
    assert f"golden-v{FORMAT_VERSION}" in [home.name for home in HOMES]


@pytest.mark.parametrize("way", ["passphrase", "recovery_key"])
def test_the_owner_reads_every_byte(home: Path, expected: dict[str, Any], way: str) -> None:
    repository = _open(home, Passphrase(expected[way]))
    _assert_listing(repository, expected)
    for row in expected["points"]:
        point = repository.point(bytes.fromhex(row["id"]))
        assert (point.parent.hex() if point.parent else None) == row["parent"]
        assert len(point.disks) == len(row["disks"])
        for disk, wanted in zip(point.disks, row["disks"], strict=True):
            assert (disk.key, disk.size) == (wanted["key"], wanted["size"])
            image = repository.open_disk(disk, ChunkCache(16 << 20))
            digest = hashlib.sha256()
            for start, length in wanted.get("places", [[0, disk.size]]):
                for at in range(start, start + length, PIECE):
                    digest.update(image.read(at, min(PIECE, start + length - at)))
            assert digest.hexdigest() == wanted["sha256"], (row["vm"], disk.key)
        files = {file.name: repository.read_file(file) for file in point.files}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        assert digests == row["files"]


def test_the_agent_lists_and_cannot_read(home: Path, expected: dict[str, Any]) -> None:
    repository = _open(home, read_credential(home / "agent.json"))
    _assert_listing(repository, expected)
    point = repository.point(bytes.fromhex(expected["points"][0]["id"]))
    leaves = list(repository.disk_map(point.disks[0]).leaves())
    assert leaves, "maps are open to agents"
    with pytest.raises(OwnerKeyNeeded):
        repository.open_disk(point.disks[1], ChunkCache(1 << 20)).read(0, 4096)


def test_it_holds_every_kind_of_object(home: Path, expected: dict[str, Any]) -> None:
    repository = _open(home, Passphrase(expected["passphrase"]))
    for kind in FOLDERS:
        assert list(repository.sealed.names(kind)), f"no {kind.name}"
    assert len(list(repository.sealed.names(Kind.SLOT))) == 2
    exclusions = read_exclusions(repository.sealed)
    assert exclusions.epoch == 2
    assert len(exclusions.trashed) == len(exclusions.damaged) == 1
    assert not exclusions.unreadable
    _assert_upkeep(repository, expected)


def _assert_upkeep(repository: Repository, expected: dict[str, Any]) -> None:
    """Policy, readings, parity, holds, proofs and leases say what they were made to say."""
    sealed = repository.sealed
    assert read_policy(sealed) == Policy(14 * 86400.0, (4, 2))
    packs = dict(pack_sizes(sealed))
    ages = ReadingBook(sealed, packs, repository.clock()).readings.last_good(OPENED)
    assert len(ages) == len(packs)
    assert len(set(ages.tolist())) == 1
    groups = read_groups(sealed)
    assert frozenset[PackRef]().union(*(group.packs for group in groups.spares)) == packs.keys()
    assert all(problem_of(sealed, group) is None for group in groups.spares)
    (hold,) = read_holds(sealed)
    proofs = read_proofs(sealed, hold.point_id)
    assert [proof.ok for proof in proofs.proofs] == [True]
    assert read_screenshot(sealed, hold.point_id, proofs.proofs[0].proof_id)
    first = repository.point(bytes.fromhex(expected["points"][0]["id"]))
    (mount,) = [lease for lease in read_leases(sealed) if lease.purpose == MOUNT]
    assert mount.roots == tuple((disk.size, disk.root) for disk in first.disks)
    assert len(mount.chunks) == 2


def test_the_second_reader_agrees(home: Path, expected: dict[str, Any]) -> None:
    root = home / "repository"
    reader = SecondReader(root, by_recovery_key(root, expected["recovery_key"]))
    assert reader.voids() == expected["voids"]
    found = {point["id"].hex(): point for point in reader.points()}
    assert sorted(found) == sorted(row["id"] for row in expected["points"])
    compared = 0
    for row in expected["points"]:
        for disk, wanted in zip(found[row["id"]]["disks"], row["disks"], strict=True):
            if disk["size"] <= WHOLE_MAX:
                digest = hashlib.sha256(b"".join(reader.disk(disk))).hexdigest()
                assert digest == wanted["sha256"]
                compared += 1
        for file in found[row["id"]]["files"]:
            digest = hashlib.sha256(reader.file(file)).hexdigest()
            assert digest == row["files"][file["name"]]
    assert compared >= 6


def test_check_finds_it_whole(home: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    """On a copy: a check may write marks."""
    copy = tmp_path / "copy"
    shutil.copytree(home / "repository", copy)
    repository = open_repository(LocalStore(copy), Passphrase(expected["passphrase"]))
    report = check_repository(repository, read_share=1.0)
    assert report.clean, report
    assert report.points == len(expected["points"])
    assert report.read_bytes > 0
    assert _tree(copy) == _tree(home / "repository")


def _open(home: Path, credential: Credential) -> Repository:
    return open_repository(LocalStore(home / "repository"), credential)


def _assert_listing(repository: Repository, expected: dict[str, Any]) -> None:
    listed = {point.point_id.hex(): point for point in repository.catalog.refresh()}
    assert sorted(listed) == sorted(row["id"] for row in expected["points"])
    assert not repository.catalog.broken
    for row in expected["points"]:
        point = listed[row["id"]]
        found = {name: getattr(point, name) for name in ("vm", "time", "created", "label")}
        assert found == {name: row[name] for name in found}
        assert point.generation == row["generation"]


def _tree(home: Path) -> dict[str, str]:
    return {
        str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.rglob("*"))
        if path.is_file()
    }
