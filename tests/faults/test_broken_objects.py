"""Every kind of object, broken in every way: what check says, what still reads, how it heals.

The oracle is symmetric: what cannot be read, check must name; what check does not name, must read
back byte for byte. Nothing may ever read back wrong.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo import catalog
from backpoint_repo.check import check_repository
from backpoint_repo.check_report import CheckReport
from backpoint_repo.errors import (
    BackpointError,
    NotARepository,
    ObjectDamaged,
    ObjectMissing,
    UnknownFormat,
    WrongPassphrase,
)
from backpoint_repo.format import BLOCK_SIZE, CONFIG_KEY, Kind
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.store.local import LocalStore
from faults.rich_repository import (
    SECOND_PASSPHRASE,
    RichRepository,
    build,
    open_as_owner,
    readable,
    reads_whole,
)
from small_repository import back_up, read_disk
from synthetic_disk import SyntheticDisk

SEED = 20261121
PARTNERS = {
    Kind.CONFIG: Kind.SLOT,
    Kind.SLOT: Kind.LEASE,
    Kind.DATA_PACK: Kind.NODE_PACK,
    Kind.NODE_PACK: Kind.DATA_PACK,
    Kind.INDEX: Kind.CATALOG,
    Kind.POINT: Kind.VOID,
    Kind.VOID: Kind.TRASH,
    Kind.LEASE: Kind.DAMAGE,
    Kind.TRASH: Kind.LEASE,
    Kind.DAMAGE: Kind.INDEX,
    Kind.CATALOG: Kind.POINT,
    Kind.NOTE: Kind.LEASE,
    Kind.POLICY: Kind.READING,
    Kind.READING: Kind.PARITY,
    Kind.PARITY: Kind.POLICY,
}
FLIPS = (
    *("flip magic", "flip kind", "flip version", "flip 8", "flip middle", "flip end"),
    *("flip random 0", "flip random 1", "flip random 2"),
)
ALTERED = ("empty", "half", *FLIPS, "swap same", "swap other", "foreign")
IN_PACKS = (Kind.DATA_PACK, Kind.NODE_PACK)
REST = tuple(kind for kind in Kind if kind not in (*IN_PACKS, Kind.CONFIG, Kind.POINT))


@pytest.fixture(autouse=True, scope="module")
def _every_point_in_a_catalogue() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "COMPACT_AFTER", 0)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RichRepository:
    return build(tmp_path_factory.mktemp("whole") / "repository", 1)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> RichRepository:
    return build(tmp_path_factory.mktemp("stranger") / "repository", 2)


@pytest.fixture
def root(whole: RichRepository, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(whole.root, tmp_path / "repository"))


def breakage(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind, how: str
) -> set[str]:
    """Break the first object of a kind; returns the keys that are wrong now."""
    key = whole.objects[kind][0]
    path = root / key
    if how == "missing":
        path.unlink()
    elif how == "swap same":
        return {key, _swap(root, key, whole.objects[kind][1])}
    elif how == "swap other":
        return {key, _swap(root, key, whole.objects[PARTNERS[kind]][-1])}
    elif how == "foreign":
        shutil.copyfile(stranger.root / stranger.objects[kind][0], path)
    else:
        path.write_bytes(_altered(path.read_bytes(), how))
    return {key}


def _swap(root: Path, first: str, second: str) -> str:
    one, two = (root / first).read_bytes(), (root / second).read_bytes()
    assert one != two
    (root / first).write_bytes(two)
    (root / second).write_bytes(one)
    return second


def _altered(data: bytes, how: str) -> bytes:
    if how == "empty":
        return b""
    if how == "half":
        return data[: len(data) // 2]
    rng = random.Random(f"{SEED} {how}")
    places = {"magic": 0, "kind": 6, "version": 7, "8": 8, "middle": len(data) // 2}
    places["end"] = len(data) - 1
    at = places.get(how.removeprefix("flip "), rng.randrange(len(data)))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def assert_told(root: Path, whole: RichRepository, report: CheckReport) -> set[str]:
    """What does not read is in the report, and the rest reads; returns names of hurt points."""
    named = {damaged.key for damaged in report.damaged}
    hurt_points = set()
    for expected in whole.points:
        repository, point = open_as_owner(root), expected.point
        ranges = [
            range(item.offset // BLOCK_SIZE, -(-(item.offset + item.length) // BLOCK_SIZE))
            for item in report.hurt
            if item.point_id == point.point_id and item.disk == "disk0"
        ]
        lost = f"points/{point.point_id.hex()}" in named
        for offset, good in readable(repository, expected):
            told = lost or any(offset // BLOCK_SIZE in hurt for hurt in ranges)
            assert good or told, f"{expected.name} does not read at {offset}; check is silent"
        hurt = {item.point_id for item in report.hurt}
        if lost or point.point_id in hurt:
            hurt_points.add(expected.name)
        else:
            assert reads_whole(repository, expected), expected.name
    return hurt_points


def assert_heals(root: Path, whole: RichRepository) -> None:
    """The next backups of all VMs succeed, and their points are whole."""
    sources = {}
    for expected in whole.points:
        disk = SyntheticDisk(len(expected.content), name=expected.name)
        disk.write(0, expected.content)
        sources[expected.point.vm] = disk
    made = [(back_up(open_as_owner(root), vm, disk), disk) for vm, disk in sources.items()]
    again = open_as_owner(root)
    for point, disk in made:
        assert read_disk(again, point.disks[0]) == disk.content(0, disk.size)
    report = check_repository(again, read_share=1.0)
    new = {point.point_id for point, _ in made}
    assert not [item for item in report.hurt if item.point_id in new], report


def test_the_whole_repository_is_clean(root: Path, whole: RichRepository) -> None:
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert report.clean, report
    assert not report.notes
    assert all(reads_whole(open_as_owner(root), expected) for expected in whole.points)


@pytest.mark.parametrize("how", [*ALTERED, "missing"])
@pytest.mark.parametrize("kind", IN_PACKS, ids=lambda kind: kind.name)
def test_packs(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind, how: str
) -> None:
    broken = breakage(root, whole, stranger, kind, how)
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert broken <= {damaged.key for damaged in report.damaged}, report
    assert report.marked > 0
    hurt = assert_told(root, whole, report)
    assert "alpha 1" in hurt
    if not how.startswith("swap"):
        assert "gamma" not in hurt, "it shares nothing with what was broken"
    assert_heals(root, whole)


@pytest.mark.parametrize("how", ["empty", "half", "missing", "flip version"])
@pytest.mark.parametrize("kind", IN_PACKS, ids=lambda kind: kind.name)
def test_packs_that_check_sees_without_reading_them(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind, how: str
) -> None:
    broken = breakage(root, whole, stranger, kind, how)
    report = check_repository(open_as_owner(root))
    assert broken <= {damaged.key for damaged in report.damaged}, report
    again = check_repository(open_as_owner(root))
    assert (again.damaged, again.hurt, again.marked) == (report.damaged, report.hurt, 0)


@pytest.mark.parametrize("kind", IN_PACKS, ids=lambda kind: kind.name)
def test_marks_hold_in_a_check_that_reads_nothing(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind
) -> None:
    breakage(root, whole, stranger, kind, "flip 8")
    assert not check_repository(open_as_owner(root), read_share=1.0).clean
    report = check_repository(open_as_owner(root))
    assert not report.clean
    assert "alpha 1" in assert_told(root, whole, report)


@pytest.mark.parametrize("how", ["empty", "half", "missing"])
def test_a_backup_alone_finds_short_packs(
    root: Path, whole: RichRepository, stranger: RichRepository, how: str
) -> None:
    """A listing tells sizes, so nothing is deduplicated onto what cannot be there."""
    breakage(root, whole, stranger, Kind.DATA_PACK, how)
    breakage(root, whole, stranger, Kind.NODE_PACK, how)
    assert_heals(root, whole)


@pytest.mark.parametrize("how", ALTERED)
def test_points(root: Path, whole: RichRepository, stranger: RichRepository, how: str) -> None:
    broken = breakage(root, whole, stranger, Kind.POINT, how)
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert broken <= {damaged.key for damaged in report.damaged}, report
    hurt = assert_told(root, whole, report)
    assert "alpha 1" in hurt
    assert "gamma" not in hurt
    with pytest.raises((ObjectDamaged, UnknownFormat), match=whole.points[0].point.point_id.hex()):
        open_as_owner(root).point(whole.points[0].point.point_id)
    assert_heals(root, whole)


def test_a_missing_point(root: Path, whole: RichRepository, stranger: RichRepository) -> None:
    """It looks like a removed one; the catalogue remembers it, so check can at least say so."""
    (key,) = breakage(root, whole, stranger, Kind.POINT, "missing")
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert key in "".join(report.notes)
    with pytest.raises(ObjectMissing, match=key):
        open_as_owner(root).point(whole.points[0].point.point_id)
    assert len(open_as_owner(root).catalog.refresh()) == len(whole.points) - 1
    assert all(reads_whole(open_as_owner(root), expected) for expected in whole.points[1:])
    assert_heals(root, whole)


@pytest.mark.parametrize("how", ALTERED)
@pytest.mark.parametrize("kind", REST, ids=lambda kind: kind.name)
def test_everything_else_costs_no_point(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind, how: str
) -> None:
    opened_before = open_as_owner(root)
    broken = breakage(root, whole, stranger, kind, how)
    if kind is Kind.SLOT and how == "swap same":
        with pytest.raises(WrongPassphrase):
            _opened(root, kind)
        assert broken <= {item.key for item in check_repository(opened_before).damaged}
        return
    repository = _opened(root, kind)
    report = check_repository(repository, read_share=1.0)
    assert broken <= {damaged.key for damaged in report.damaged}, report
    spared = [item for item in whole.points if f"points/{item.point.point_id.hex()}" not in broken]
    assert not report.hurt
    for expected in spared:
        assert reads_whole(repository, expected), expected.name
    if any(key.startswith("trash/") for key in broken):
        with pytest.raises((ObjectDamaged, UnknownFormat), match="trash/"):
            back_up(repository, "alpha", SyntheticDisk(BLOCK_SIZE))
    elif kind is not Kind.SLOT:
        assert_heals(root, whole)


@pytest.mark.parametrize("kind", REST, ids=lambda kind: kind.name)
def test_everything_else_missing(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind
) -> None:
    """Nobody needs it, or it looks removed on purpose."""
    breakage(root, whole, stranger, kind, "missing")
    repository = _opened(root, kind)
    report = check_repository(repository, read_share=1.0)
    assert report.clean, report
    assert any("in no index" in note for note in report.notes) == (kind is Kind.INDEX)
    assert all(reads_whole(repository, expected) for expected in whole.points)
    if kind is not Kind.SLOT:
        assert_heals(root, whole)


def _opened(root: Path, kind: Kind) -> Repository:
    """With the first slot gone, the second opens."""
    if kind is not Kind.SLOT:
        return open_as_owner(root)
    return open_repository(LocalStore(root), Passphrase(SECOND_PASSPHRASE))


@pytest.mark.parametrize("how", [*(how for how in ALTERED if how != "swap same"), "missing"])
def test_config(root: Path, whole: RichRepository, stranger: RichRepository, how: str) -> None:
    """Nothing can be opened; the error names the object, and putting it back mends all."""
    breakage(root, whole, stranger, Kind.CONFIG, how)
    wanted = NotARepository if how == "missing" else BackpointError
    with pytest.raises(wanted) as caught:
        open_as_owner(root)
    assert how == "missing" or CONFIG_KEY in str(caught.value)
    shutil.copyfile(whole.root / CONFIG_KEY, root / CONFIG_KEY)
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert report.clean == (how != "swap other"), "then a slot lies broken as well"


@pytest.mark.parametrize("how", ["flip version", "flip middle"])
def test_the_newest_point_broken(
    root: Path, whole: RichRepository, stranger: RichRepository, how: str
) -> None:
    """The next backup stands on the one before."""
    path = root / "points" / whole.points[1].point.point_id.hex()
    path.write_bytes(_altered(path.read_bytes(), how))
    assert_heals(root, whole)
    newest = max(open_as_owner(root).catalog.refresh(), key=lambda point: point.generation)
    assert newest.generation == 1, "alpha's first point is the parent"


@pytest.mark.parametrize("how", ["flip 8", "half", "missing"])
@pytest.mark.parametrize("kind", IN_PACKS, ids=lambda kind: kind.name)
def test_a_changed_list_does_not_hand_damage_on(
    root: Path, whole: RichRepository, stranger: RichRepository, kind: Kind, how: str
) -> None:
    """What the parent lost is read again, although it did not change."""
    breakage(root, whole, stranger, kind, how)
    assert not check_repository(open_as_owner(root), read_share=1.0).clean
    disk = SyntheticDisk(len(whole.points[1].content), name="alpha 2")
    disk.write(0, whole.points[1].content)
    disk.write(600 << 10, b"changed")
    point = back_up(open_as_owner(root), "alpha", disk, changed=[(600 << 10, 7)])
    assert read_disk(open_as_owner(root), point.disks[0]) == disk.content(0, disk.size)
    report = check_repository(open_as_owner(root), read_share=1.0)
    assert point.point_id not in {item.point_id for item in report.hurt}
