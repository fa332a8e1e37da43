"""Nobody works for a moment: is everything there that was promised, and in the end nothing else?

Reads every point through a repository opened anew. Decides nothing about what is done.
"""

from __future__ import annotations

import re
from typing import Final

from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.format import Kind
from backpoint_repo.index import stored_packs
from backpoint_repo.lease_book import read_leases, revoke
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.local import LocalStore
from backpoint_repo.trash import read_trash
from faults.thrash_points import Broken
from faults.thrash_work import Ground
from small_repository import PASSPHRASE

_PIECE: Final = 1 << 20
_NAMES: Final = re.compile(
    r"config|(slots|policy|points|index|catalog|damage|readings|parity|notes|leases|trash)/[0-9a-z-]+"
    r"|(packs|nodes)/[0-9a-f]{2}/[0-9a-f]{32}|tmp/[0-9a-f]{32}"
)
_WASTE: Final = 2.0
"""Of what the points' disks hold, so much may lie in packs after all was collected: what is not
worth copying stays."""


def audit(ground: Ground, *, end_leases: bool = True) -> int:
    """All that was promised is there and right; the number of points. Raises Broken."""
    repository = _opened(ground)
    if end_leases:
        for lease in read_leases(repository.sealed):
            revoke(repository.sealed, lease.session, bytes(16), repository.clock())
    points = repository.catalog.refresh()
    listed = {
        summary.point_id.hex(): repository.point(summary.point_id).label for summary in points
    }
    for state in ground.promises.settle(listed, ground.states):
        if not ground.fleet.may_be_parent(state):
            ground.states.pop(state.label, None)
            state.drop()
    for point_id, label in listed.items():
        _compare(repository, bytes.fromhex(point_id), ground, label)
    ground.processes.run("check", "--read-data")
    _judge_names(ground)
    return len(listed)


def audit_end(ground: Ground) -> None:
    """Nobody is there any more: what nobody needs goes, the rest stays. Raises Broken."""
    audit(ground)
    _collect_twice(ground)
    audit(ground)
    _judge_packs(ground)
    _unhold_all(ground)
    number = ground.promises.begin_removal(None)
    record = ground.processes.run("prune", "--keep-last", "1", codes=(0, 2)).record
    removed = {row["id"] for row in record["points"] if row["removed"]}
    ground.promises.end_removal(number, removed)
    _collect_twice(ground)
    audit(ground)
    _judge_packs(ground)
    _judge_size(ground)


def _unhold_all(ground: Ground) -> None:
    for promise in ground.promises.standing():
        for holder in list(promise.holders):
            ground.promises.let_go(promise.point_id, holder)
    for row in ground.processes.run("points").record["points"]:
        if row["holds"]:
            ground.processes.run("unhold", f"{row['vm']}@{row['id']}")


def _collect_twice(ground: Ground) -> None:
    """The second time finds nothing to wait for."""
    ground.processes.run("collect", "--wait", "1s")
    record = ground.processes.run("collect", "--wait", "1s").record
    if record["waiting"] or record["pinned"] or record["trashed_packs"]:
        raise Broken(f"something is left after collecting twice: {record}")


def _opened(ground: Ground) -> Repository:
    return open_repository(LocalStore(ground.repo), PASSPHRASE)


def _compare(repository: Repository, point_id: bytes, ground: Ground, label: str) -> None:
    point, state = repository.point(point_id), ground.states[label]
    for disk, path in zip(point.disks, state.disks, strict=True):
        expected = path.read_bytes()
        reader = repository.open_disk(disk, ChunkCache(32 << 20))
        for at in range(0, len(expected), _PIECE):
            if reader.read(at, _PIECE) != expected[at : at + _PIECE]:
                raise Broken(f"{point.vm}@{point_id.hex()} ({label}), {disk.key}: wrong at {at}")
        if disk.size != len(expected):
            raise Broken(f"{point.vm}@{point_id.hex()} ({label}), {disk.key}: wrong size")


def _judge_names(ground: Ground) -> None:
    names = [found.relative_to(ground.repo) for found in ground.repo.rglob("*") if found.is_file()]
    odd = [str(name) for name in names if not _NAMES.fullmatch(str(name))]
    if odd:
        raise Broken(f"files of no known kind: {odd}")


def _judge_packs(ground: Ground) -> None:
    """Each holds something that a point needs; and nobody's lease is left."""
    repository = _opened(ground)
    sealed, live = repository.sealed, _live(repository)
    for pack in stored_packs(sealed):
        ids = {row.tobytes() for row in sealed.directory(pack.kind, pack.name).ids}
        if not ids & live:
            raise Broken(f"{pack} is left, and nothing needs it")
    if leases := list(sealed.names(Kind.LEASE)):
        raise Broken(f"leases are left: {leases}")
    # Trash objects may stay, until there is newer trash; what they name may not.
    trashed = read_trash(sealed).packs
    if left := trashed & set(stored_packs(sealed)):
        raise Broken(f"trash is left: {left}")


def _live(repository: Repository) -> set[bytes]:
    """Ids of all nodes and chunks that points need."""
    live = set[bytes]()
    for summary in repository.catalog.refresh():
        point = repository.point(summary.point_id)
        for disk in point.disks:
            tree: DiskMap = repository.disk_map(disk)
            live.update(node_id for node_id, _, _ in tree.nodes())
            for number, _ in tree.leaves():
                live.update(row.tobytes() for row in tree.leaf(number).ids)
    return live


def _judge_size(ground: Ground) -> None:
    needed = sum(
        path.stat().st_size
        for promise in ground.promises.standing()
        for path in promise.state.disks
    )
    there = sum(
        path.stat().st_size
        for name in ("packs", "nodes")
        for path in (ground.repo / name).rglob("*")
    )
    if there > _WASTE * needed:
        raise Broken(f"packs of {there} bytes are left for disks of {needed}")
