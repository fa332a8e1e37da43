"""A repository with at least two objects of every kind, and what it must give back.

Decides what stands on what: `alpha` has two points, `beta` shares chunks with it, `gamma` shares
nothing with anybody. Knows nothing of damage.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import BackpointError
from backpoint_repo.exclusions import mark_damaged
from backpoint_repo.format import BLOCK_SIZE, FOLDERS, Kind, parse_header
from backpoint_repo.index import pack_sizes
from backpoint_repo.index_segment import PackRef
from backpoint_repo.key_slots import add_slot
from backpoint_repo.lease import MOUNT, Lease, LeaseTerms
from backpoint_repo.parity.group_writer import Shape, StoredPack, write_group
from backpoint_repo.point import Point
from backpoint_repo.point_note import AFTERMATH, PointNote, put_note
from backpoint_repo.policy import Policy, put_policy
from backpoint_repo.record import encode_record
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.scrubbing.reading_book import ReadingBook
from backpoint_repo.scrubbing.readings import OPENED, row_of, rows_of
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from backpoint_repo.trash import put_trash
from small_repository import CHEAP, PASSPHRASE, StandingClock, new_repository
from synthetic_disk import SyntheticDisk

DISK_SIZE = 640 << 10
SECOND_PASSPHRASE = "battery staple"
VMX = b'displayName = "alpha"\n' * 400


@dataclass(frozen=True)
class Expected:
    """What a point must read as: its name here, and the bytes of its one disk."""

    name: str
    point: Point
    content: bytes


@dataclass(frozen=True)
class RichRepository:
    """A folder that holds a repository. objects: kind -> keys, the first of which matters most:
    packs and segments of alpha's first point, on which alpha and beta stand."""

    root: Path
    points: tuple[Expected, ...]
    objects: dict[Kind, tuple[str, ...]]


def build(root: Path, seed: int) -> RichRepository:
    """The caller has set `catalog.COMPACT_AFTER` to 0, so that every point has a catalogue."""
    store = LocalStore(root)
    points, order = build_in(store, seed)
    return RichRepository(root, points, _by_kind(store, order))


def build_in(store: Store, seed: int) -> tuple[tuple[Expected, ...], list[str]]:
    """The points, and the keys of all objects in the order in which they came to be."""
    repository = new_repository(store)
    rng = random.Random(seed)
    disk = SyntheticDisk(DISK_SIZE, name="alpha.img")
    disk.write(0, rng.randbytes(256 << 10))
    points, seen, order = [], set[str](), list[str]()

    def keep(name: str, vm: str, source: SyntheticDisk) -> None:
        with owner_of(store).begin_backup(vm) as session:
            session.store_disk(DiskJob("disk0", source), lambda _: None)
            if vm == "alpha":
                session.store_file("alpha.vmx", VMX)
            point = session.publish(time=None, label=name)
        points.append(Expected(name, point, source.content(0, source.size)))
        fresh = sorted({found.key for found in store.list("")} - seen)
        seen.update(fresh)
        order.extend(fresh)

    keep("alpha 1", "alpha", disk)
    disk.write(64 << 10, rng.randbytes(40 << 10))
    keep("alpha 2", "alpha", disk)
    disk.write(300 << 10, rng.randbytes(80 << 10))
    keep("beta", "beta", disk)
    other = SyntheticDisk(DISK_SIZE, name="gamma.img")
    other.write(0, rng.randbytes(200 << 10))
    keep("gamma", "gamma", other)
    _add_rare_objects(repository, [expected.point.point_id for expected in points])
    order.extend(sorted({found.key for found in store.list("")} - seen))
    return tuple(points), order


def open_as_owner(root: Path) -> Repository:
    """As a new process sees it."""
    return owner_of(LocalStore(root))


def owner_of(store: Store) -> Repository:
    """The same, of any store."""
    return open_repository(store, PASSPHRASE, StandingClock())


def readable(repository: Repository, expected: Expected) -> Iterator[tuple[int, bool]]:
    """(offset, whether it could be read) of every 4 KiB of a point's disk.

    Fails where a wrong byte comes back, or anything but a refusal of our own.
    """
    reader = None
    for offset in range(0, len(expected.content), BLOCK_SIZE):
        try:
            if reader is None:
                point = repository.point(expected.point.point_id)
                reader = repository.open_disk(point.disks[0], ChunkCache(16 << 20))
            data = reader.read(offset, BLOCK_SIZE)
        except BackpointError:
            yield offset, False
            continue
        assert data == expected.content[offset : offset + BLOCK_SIZE], (expected.name, offset)
        yield offset, True


def reads_whole(repository: Repository, expected: Expected) -> bool:
    """Every byte of the disk and of its configuration files comes back."""
    if not all(good for _, good in readable(repository, expected)):
        return False
    try:
        files = [repository.read_file(file) for file in expected.point.files]
    except BackpointError:
        return False
    assert files == [VMX] * len(expected.point.files)
    return True


def _add_rare_objects(repository: Repository, ids: list[bytes]) -> None:
    sealed, clock = repository.sealed, repository.clock
    add_slot(sealed, SECOND_PASSPHRASE, "second", CHEAP, clock())
    for number in (1, 2):
        nobody = (secrets.token_bytes(32), PackRef(Kind.DATA_PACK, secrets.token_bytes(16)))
        mark_damaged(sealed, [nobody], clock())
        trashed = PackRef(Kind.DATA_PACK, secrets.token_bytes(16))
        assert put_trash(sealed, number, [trashed], 0, secrets.token_bytes(16), clock())
        sealed.put(
            Kind.VOID, secrets.token_hex(16), encode_record({"revoked": clock(), "by": bytes(16)})
        )
        Lease(sealed, secrets.token_bytes(16), LeaseTerms(MOUNT, 0), clock)
        put_note(sealed, PointNote(ids[number], AFTERMATH, clock(), {"remove_s": number}))
        put_policy(sealed, Policy(number * 60.0, (2, 2)), clock)
    packs = [StoredPack(pack, size) for pack, size in pack_sizes(sealed)]
    for one in packs[:2]:
        row = row_of(one.pack, clock() - 60, OPENED)
        ReadingBook(sealed, [one.pack], clock()).add(rows_of([row]), clock())
    for chosen in (packs[:2], packs[2:4]):
        write_group(sealed, chosen, Shape(2, 4096), lambda _: None)


def _by_kind(store: Store, order: list[str]) -> dict[Kind, tuple[str, ...]]:
    found: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for key in order:
        found[parse_header(store.get(key), key)].append(key)
    assert all(found[kind] for kind in Kind), found
    assert set(FOLDERS) < set(found)
    return {kind: tuple(keys) for kind, keys in found.items()}
