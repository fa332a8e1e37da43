"""What the project wants of its figures, and whether a run met it.

Decides the factors and which tools each is against; measures nothing. An aim whose figures are
not all there is reported as not judged, never as met.
"""

from __future__ import annotations

from tools.bench import ingest, mounting, storing
from tools.bench.mounts import EXPORT
from tools.bench.report import OURS, Row, ratio

BACKUP_PEERS = ("borg 1.4", "borg 2", "restic")
# work, peers (the best of them counts), least factor of speed
FASTER: tuple[tuple[str, tuple[str, ...], float], ...] = (
    (ingest.FULL, BACKUP_PEERS, 2.0),
    (ingest.UNCHANGED, BACKUP_PEERS, 7.0),
    (ingest.NEXT_DAY, BACKUP_PEERS, 3.0),
    (mounting.SEQUENTIAL, BACKUP_PEERS, 2.0),
    (mounting.SEQUENTIAL, (EXPORT,), 0.8),
    (mounting.random_work("cold", 1), ("borg 1.4", "borg 2"), 5.0),
    (mounting.random_work("cold", 16), ("borg 1.4", "borg 2"), 5.0),
    (mounting.random_work("warm", 1), (EXPORT,), 0.5),
    (mounting.random_work("warm", 16), (EXPORT,), 0.5),
)
STORED_SHARE = 0.6
DISK_SIZE_SPREAD = 1.2
BACKUP_RSS = 300_000_000
START_S, START_RSS = 2.0, 200_000_000


def verdicts(rows: list[Row], benchmarks: set[str]) -> list[str]:
    """One sentence an aim of the benchmarks that ran."""
    said: list[str] = []
    if ingest.NAME in benchmarks:
        said += [_faster(rows, *aim) for aim in FASTER[:3]]
        said += [_spread(rows), _backup_memory(rows)]
    if mounting.NAME in benchmarks:
        said += [_faster(rows, *aim) for aim in FASTER[3:]]
        said.append(_start(rows))
    if storing.NAME in benchmarks:
        said.append(_stored(rows))
    return said


def _row(rows: list[Row], work: str, tool: str) -> Row | None:
    return next((row for row in rows if row.work == work and row.tool == tool), None)


def _against(rows: list[Row], work: str, peers: tuple[str, ...]) -> list[tuple[float, str]]:
    ours = _row(rows, work, OURS)
    if ours is None:
        return []
    found: list[tuple[float, str]] = []
    for peer in peers:
        theirs = _row(rows, work, peer)
        factor = ratio(ours, theirs) if theirs else None
        if factor is not None:
            found.append((factor, peer))
    return found


def _faster(rows: list[Row], work: str, peers: tuple[str, ...], least: float) -> str:
    found = _against(rows, work, peers)
    if not found:
        return f"{work}: not judged"
    factor, peer = min(found)
    return f"{work}: {factor:.2f}x {peer}, aim {least:g}x: {_met(factor >= least)}"


def _stored(rows: list[Row]) -> str:
    found = _against(rows, storing.WORK, (*BACKUP_PEERS, storing.REFERENCE))
    if not found:
        return f"{storing.WORK}: not judged"
    share, peer = max(found)
    met = _met(share <= STORED_SHARE)
    return f"{storing.WORK}: {share:.2f} of {peer}, aim {STORED_SHARE:g}: {met}"


def _spread(rows: list[Row]) -> str:
    labels = [label for label, _ in ingest.SPARSE_DISKS]
    small, big = (_row(rows, ingest.incremental_work(label), OURS) for label in labels)
    if not (small and big and small.seconds and big.seconds):
        return "changed list, small against big disk: not judged"
    spread = big.seconds / small.seconds
    met = _met(spread <= DISK_SIZE_SPREAD)
    disks = f"{labels[1]} over {labels[0]}"
    return f"changed list, {disks}: {spread:.2f}, aim {DISK_SIZE_SPREAD}: {met}"


def _backup_memory(rows: list[Row]) -> str:
    peaks = [
        row.peak_rss
        for row in rows
        if row.benchmark == ingest.NAME and row.tool == OURS and row.peak_rss
    ]
    if not peaks:
        return "backup's memory: not judged"
    peak = max(peaks)
    return f"backup's memory: {peak / 1e6:.0f} MB, aim 300 MB: {_met(peak < BACKUP_RSS)}"


def _start(rows: list[Row]) -> str:
    row = _row(rows, mounting.MANY_POINTS, OURS)
    if row is None or row.seconds is None or row.peak_rss is None:
        return f"mount {mounting.MANY_POINTS}: not judged"
    met = _met(row.seconds < START_S and row.peak_rss < START_RSS)
    took = f"{row.seconds:.2f} s, {row.peak_rss / 1e6:.0f} MB"
    return f"mount {mounting.MANY_POINTS}: {took}, aim 2 s, 200 MB: {met}"


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"
