"""The format as FORMAT.md says it: a second reader reads what the code writes, byte for byte.

Also holds the page against the code: every kind and every field of every record is on it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

import backpoint_repo.format
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import FOLDERS, Kind, object_key
from backpoint_repo.index_segment import Location
from backpoint_repo.key_slots import add_slot
from backpoint_repo.lease import BACKUP, Lease, LeaseTerms
from backpoint_repo.recovery_key import format_recovery_key, new_recovery_key
from backpoint_repo.repository import Repository
from backpoint_repo.store.local import LocalStore
from repo.second_reader import SecondReader
from repo.second_reader_keys import (
    Damaged,
    NotOpened,
    by_credential,
    by_passphrase,
    by_recovery_key,
    decode_record,
    slot_info,
)
from small_repository import CHEAP, PASSPHRASE, SMALL_CHUNKS, StandingClock, back_up, new_repository
from synthetic_disk import SyntheticDisk, random_disk, scribble

BLOCK = 4096
PAGE = (Path(__file__).parents[2] / "repo" / "FORMAT.md").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(root: Path) -> Repository:
    return new_repository(LocalStore(root))


def _opened(root: Path) -> SecondReader:
    return SecondReader(root, by_passphrase(root, PASSPHRASE.text))


def _bytes_of(reader: SecondReader, point: int, disk: int) -> bytes:
    return b"".join(reader.disk(reader.points()[point]["disks"][disk]))


def _compressible(size: int) -> SyntheticDisk:
    disk = SyntheticDisk(size)
    disk.write(0, (b"all work and no play " * (size // 21 + 1))[:size])
    return disk


@pytest.mark.parametrize(
    "disk",
    [
        pytest.param(SyntheticDisk(0), id="empty"),
        pytest.param(SyntheticDisk(1 << 20), id="only zeros"),
        pytest.param(random_disk(3 << 20, 1), id="sparse"),
        pytest.param(random_disk((2 << 20) + 777, 2, tells_holes=False), id="odd size"),
        pytest.param(_compressible(700_001), id="compressible to the last byte"),
        pytest.param(random_disk(70 << 20, 3, extents=20), id="three leaves"),
        pytest.param(random_disk((9 << 30) + 5, 4, extents=3), id="two levels of inner nodes"),
    ],
)
def test_a_disk_is_read_byte_for_byte(
    root: Path, repository: Repository, disk: SyntheticDisk
) -> None:
    point = back_up(repository, "vm", disk)
    reader = _opened(root)
    record = reader.points()[0]
    assert record["id"] == point.point_id
    assert record["disks"][0]["size"] == disk.size
    if disk.size <= 1 << 30:
        assert _bytes_of(reader, 0, 0) == disk.content(0, disk.size)
        return
    # Too large to read whole: the leaves must hold all data blocks, and the chunks their bytes.
    blocks = set()
    for number, _, entries in reader.leaves(record["disks"][0]):
        for start, end, content_id in entries:
            if content_id != bytes(32):
                first = number * 8192 + start
                blocks |= set(range(first, first + end - start))
                plain = reader._chunk(content_id, (end - start) * BLOCK)
                assert plain == disk.content(first * BLOCK, len(plain)).ljust(len(plain), b"\0")
    assert disk.data_blocks() <= blocks


def test_two_disks_files_and_an_incremental(root: Path, repository: Repository) -> None:
    first, second = random_disk(5 << 20, 5), random_disk((40 << 20) + 4097, 6)
    files = {"vm.vmx": b"displayName = 1\n" * 9000, "leer.nvram": b"", "größe.txt": b"x" * 65536}
    before = first.content(0, first.size)
    back_up(repository, "zwei", first, second)
    changed = scribble(first, random.Random(7), 5, 100_000)
    with repository.begin_backup("zwei") as session:
        session.store_disk(DiskJob("disk0", first, changed), lambda _: None)
        session.store_disk(DiskJob("disk1", second, []), lambda _: None)
        for name, data in files.items():
            session.store_file(name, data)
        published = session.publish(time=1_600_000_000.5, label="Größe")
    reader = _opened(root)
    old, new = sorted(reader.points(), key=lambda point: point["generation"])
    assert (new["vm"], new["label"], new["time"]) == ("zwei", "Größe", 1_600_000_000.5)
    assert new["parent"] == old["id"]
    assert b"".join(reader.disk(old["disks"][0])) == before
    assert b"".join(reader.disk(new["disks"][0])) == first.content(0, first.size)
    assert b"".join(reader.disk(new["disks"][1])) == second.content(0, second.size)
    assert {file["name"]: reader.file(file) for file in new["files"]} == files
    assert not published.warnings, "the changed-block list was used"


def test_every_way_in(tmp_path: Path, root: Path, repository: Repository) -> None:
    disk = random_disk(1 << 20, 8)
    back_up(repository, "vm", disk)
    recovery = format_recovery_key(new_recovery_key())
    slot = add_slot(repository.sealed, recovery, "printed", CHEAP, 12.5)
    secret = repository.sealed.keyring.secret
    write_credential(AgentCredential.of(repository.config, secret), tmp_path / "agent.json")

    keys = by_recovery_key(root, recovery)
    info = slot_info(root, keys, slot.slot_id)
    assert (info["label"], info["created"]) == ("printed", 12.5)
    assert _bytes_of(SecondReader(root, keys), 0, 0) == disk.content(0, disk.size)

    agent = SecondReader(root, by_credential(tmp_path / "agent.json"))
    assert [point["vm"] for point in agent.points()] == ["vm"]
    assert any(len(entries) > 1 for _, _, entries in agent.leaves(agent.points()[0]["disks"][0]))
    with pytest.raises(NotOpened):
        _bytes_of(agent, 0, 0)
    with pytest.raises(NotOpened):
        by_passphrase(root, "another")


def test_pack_directories_say_what_the_index_says(root: Path, repository: Repository) -> None:
    back_up(repository, "vm", random_disk(4 << 20, 9))
    reader = _opened(root)
    listed = {
        (content_id, place) for content_id, places in reader._index.items() for place in places
    }
    said = set()
    for kind, folder in ((3, "packs"), (4, "nodes")):
        for path in (root / folder).glob("*/*"):
            keys, rows = reader.directory(kind, path.name)
            assert len(keys) == (1 if kind == 3 else 0)
            said |= {(row[0], (kind, path.name, row[1], row[2])) for row in rows}
    assert listed == said
    assert len({kind for _, (kind, _, _, _) in said}) == 2


@pytest.mark.parametrize("tells_holes", [True, False])
@pytest.mark.parametrize(
    "parameters", [SMALL_CHUNKS, ChunkParameters.with_average(64 << 10)], ids=["small", "64K"]
)
def test_cuts_follow_the_rule(root: Path, parameters: ChunkParameters, tells_holes: bool) -> None:
    """The borders in a map are those that section 6 gives, computed in plain Python."""
    disk = random_disk((34 << 20) + 100, 10, extents=12, tells_holes=tells_holes)
    disk.write(20 << 20, b"text " * 100_000)
    disk.write((1 << 20) + 3 * BLOCK, bytes(3 * BLOCK))
    disk.write((33 << 20) + 50, random.Random(11).randbytes((1 << 20) + 50))
    repository = new_repository(LocalStore(root), chunks=parameters)
    back_up(repository, "vm", disk)
    reader = _opened(root)
    for number, blocks, entries in reader.leaves(reader.points()[0]["disks"][0]):
        content = disk.content(number * 8192 * BLOCK, blocks * BLOCK).ljust(blocks * BLOCK, b"\0")
        expected = _plain_cut(content, repository.sealed.keyring.cut_key, parameters)
        assert [(start, end, cid == bytes(32)) for start, end, cid in entries] == expected
        assert len([span for span in expected if not span[2]]) > 3


def _plain_cut(
    leaf: bytes, cut_key: bytes, parameters: ChunkParameters
) -> list[tuple[int, int, bool]]:
    """Section 6, word by word: (start, end, hole) of each span."""
    stream = blake3(b"cut multipliers", key=cut_key).digest(length=256)
    multipliers = [number | 1 for number in struct.unpack("<32Q", stream)]
    threshold = 2**32 // max(1, parameters.avg_blocks - parameters.min_blocks)
    blocks = [leaf[at : at + BLOCK] for at in range(0, len(leaf), BLOCK)]
    zero = [not any(block) for block in blocks]
    candidates = set()
    for number, block in enumerate(blocks):
        if zero[number]:
            continue
        words = struct.unpack("<512Q", block)[::16]
        value = sum(w * m for w, m in zip(words, multipliers, strict=True)) % 2**64
        if value >> 32 < threshold:
            candidates.add(number)
    spans: list[tuple[int, int, bool]] = []
    start = 0
    while start < len(blocks):
        if _zeros_from(zero, start) >= parameters.hole_blocks:
            end = start + _zeros_from(zero, start)
            spans.append((start, end, True))
            start = end
            continue
        end = start
        while end < len(blocks) and _zeros_from(zero, end) < parameters.hole_blocks:
            end += max(1, _zeros_from(zero, end))
        while start < end:
            limit = min(start + parameters.max_blocks, end)
            inside = range(start + parameters.min_blocks, limit)
            cut = next((block for block in inside if block in candidates), limit)
            spans.append((start, cut, False))
            start = cut
    return spans


def _zeros_from(zero: list[bool], start: int) -> int:
    """Length of the run of zero blocks that begins at `start`."""
    end = start
    while end < len(zero) and zero[end]:
        end += 1
    return end - start


def test_a_moved_object_does_not_open(root: Path, repository: Repository) -> None:
    back_up(repository, "vm", random_disk(1 << 20, 11))
    point = next((root / "points").iterdir())
    (root / "points" / ("0" * 32)).write_bytes(point.read_bytes())
    with pytest.raises(Damaged):
        _opened(root)


def test_the_page_names_every_kind_and_folder() -> None:
    for kind in Kind:
        folder = FOLDERS.get(kind, "config")
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {kind.name} |"))
        assert row.startswith(f"| {kind.name} | {int(kind)} | `{folder}"), row
    assert f"repository format, version {backpoint_repo.format.FORMAT_VERSION}" in PAGE


def test_the_page_names_every_field_that_is_written(root: Path, repository: Repository) -> None:
    disk = random_disk(1 << 20, 12)
    with repository.begin_backup("vm") as session:
        session.store_disk(DiskJob("disk0", disk), lambda _: None)
        session.store_file("vm.vmx", b"x")
        session.publish(time=None, label="")
    Lease(repository.sealed, bytes(16), LeaseTerms(BACKUP, 0), StandingClock())
    rows = [(content_id, place.pack) for content_id, place in _some_copies(repository)]
    mark_damaged(repository.sealed, rows, 1.0)
    reader = _opened(root)
    point = reader.points()[0]
    keys = by_passphrase(root, PASSPHRASE.text)
    slot = next((root / "slots").iterdir())
    for record, least in (
        (decode_record(slot.read_bytes()[8:]), 7),
        (slot_info(root, keys, slot.name), 3),
        (point, 15),
        (point["disks"][0], 5),
        (point["files"][0], 3),
        (next(iter(reader.records("leases").values())), 9),
        (next(iter(reader.records("damage").values())), 2),
        (reader.config, 7),
    ):
        names = set(record) - {"id"}
        assert len(names) >= least
        assert [name for name in sorted(names) if not _on_page(name)] == []


def test_the_page_names_every_field_of_trash_that_is_read() -> None:
    """No writer of trash exists yet; what `read_exclusions` asks for must be in its table."""
    section = PAGE.split("**Trash.**")[1].split("**Damage.**")[0]
    assert "| epoch |" in section
    assert "| packs |" in section
    assert object_key(Kind.TRASH, f"{1:016x}") == "trash/0000000000000001"


def _some_copies(repository: Repository) -> Iterator[tuple[bytes, Location]]:
    for table in repository.index.tables():
        for row in range(min(2, len(table))):
            yield table.ids()[row].tobytes(), table.location(row)


def _on_page(name: str) -> bool:
    """As the first cell of a table's row (perhaps among others), or as code."""
    cells = {
        part.strip()
        for line in PAGE.splitlines()
        if line.startswith("| ")
        for part in line.split("|")[1].split(",")
    }
    return name in cells or f"`{name}`" in PAGE
