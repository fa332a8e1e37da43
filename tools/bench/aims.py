"""What the project wants of its figures, and whether a run met it.

Decides the factors and which tools each is against; measures nothing. An aim whose figures are
not all there is reported as not judged, never as met.
"""

from __future__ import annotations

from tools.bench import guest_trees, ingest, lifecycle, live, mounting, object_store, storing
from tools.bench.buckets import LINE, MEMORY
from tools.bench.guest_files import PLACE
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
FIRST_BYTE_S, NAMES_S = 1.0, 2.0
GUEST_TO_FLAT = 0.5
BOOT_TO_RAW = 1 / 1.2
NFS_TO_DIRECT = 0.7
WRITES_TO_RAW = 0.5
SESSION_START_S = 1.0
COMMIT_SPREAD = 1.5
READERS_SPREAD = 2.0
BACKUP_TO_LINE, READ_TO_LINE = 0.8, 0.7
FIRST_FILE_S = 3.0
COLLECT_S, COLLECT_RSS = 60.0, 1_000_000_000


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
    if guest_trees.NAME in benchmarks:
        said += _guest(rows)
    if live.NAME in benchmarks:
        said += _live(rows)
    if lifecycle.NAME in benchmarks:
        said += _lifecycle(rows)
    if object_store.NAME in benchmarks:
        said += _object_store(rows)
    return said


def _object_store(rows: list[Row]) -> list[str]:
    shares = (
        (object_store.backup_work(MEMORY), BACKUP_TO_LINE),
        (object_store.read_work(MEMORY), READ_TO_LINE),
    )
    return [
        *(_of_line(rows, work, least) for work, least in shares),
        _within(rows, object_store.FIRST_FILE, FIRST_FILE_S),
    ]


def _of_line(rows: list[Row], work: str, least: float) -> str:
    row = _row(rows, work, OURS)
    speed = row.mb_per_s() if row else None
    if speed is None or LINE.bytes_per_s is None:
        return f"{work}: not judged"
    share = speed * 1e6 / LINE.bytes_per_s
    return f"{work}: {share:.0%} of the line, aim {least:.0%}: {_met(share >= least)}"


def _lifecycle(rows: list[Row]) -> list[str]:
    return [
        _faster(rows, lifecycle.THIN, BACKUP_PEERS, 1.0),
        _within(rows, lifecycle.COLLECT, COLLECT_S),
        _memory(rows, lifecycle.COLLECT, COLLECT_RSS),
        _memory(rows, lifecycle.REBUILD, COLLECT_RSS),
    ]


def _memory(rows: list[Row], work: str, limit: int) -> str:
    row = _row(rows, work, OURS)
    if row is None or row.peak_rss is None:
        return f"memory of {work}: not judged"
    met = _met(row.peak_rss < limit)
    return f"memory of {work}: {row.peak_rss / 1e6:.0f} MB, aim {limit / 1e6:.0f} MB: {met}"


def _live(rows: list[Row]) -> list[str]:
    return [
        _within(rows, live.START, SESSION_START_S),
        *(_faster(rows, work, (live.RAW,), BOOT_TO_RAW) for work in (live.BOOT, live.BOOT_NFS)),
        _faster(rows, live.SEQUENTIAL, (live.DIRECT,), NFS_TO_DIRECT),
        *(_faster(rows, live.write_work(jobs), (live.RAW,), WRITES_TO_RAW) for jobs in live.JOBS),
        _commits(rows),
    ]


def _commits(rows: list[Row]) -> str:
    """What each further MiB costs, at the small end and at the large: the fixed part aside."""
    found = [_row(rows, live.commit_work(written), OURS) for written in live.COMMITTED]
    took = [row.seconds for row in found if row is not None and row.seconds]
    if len(took) < len(live.COMMITTED):
        return "cost of a commit: not judged"
    small, middle, large = live.COMMITTED
    first = (took[1] - took[0]) / (middle - small)
    later = (took[2] - took[1]) / (large - middle)
    met = _met(0 < later <= COMMIT_SPREAD * first)
    costs = f"{first * 1000:.1f} and {later * 1000:.1f} ms a MiB"
    return f"cost of a commit beyond {took[0]:.2f} s: {costs}, aim: in proportion: {met}"


def _guest(rows: list[Row]) -> list[str]:
    places = (guest_trees.ROOT, PLACE)
    quick = {guest_trees.first_byte_work(place): FIRST_BYTE_S for place in places}
    quick[guest_trees.listing_work(guest_trees.NAMES, "ext4")] = NAMES_S
    return [
        *(_within(rows, work, limit_s) for work, limit_s in quick.items()),
        _faster(rows, guest_trees.SEQUENTIAL, (guest_trees.FLAT,), GUEST_TO_FLAT),
        *_readers(rows),
    ]


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


def _within(rows: list[Row], work: str, limit_s: float) -> str:
    row = _row(rows, work, OURS)
    if row is None or row.seconds is None:
        return f"{work}: not judged"
    return f"{work}: {row.seconds:.2f} s, aim {limit_s:g} s: {_met(row.seconds < limit_s)}"


def _readers(rows: list[Row]) -> list[str]:
    work = guest_trees.TOGETHER
    together, first, alone = (
        _row(rows, one, OURS) for one in (work, guest_trees.FIRST_DONE, guest_trees.ALONE)
    )
    if not (together and first and alone):
        return [f"{work}: not judged"]
    if not (together.seconds and first.seconds and alone.seconds):
        return [f"{work}: not judged"]
    spread, factor = together.seconds / first.seconds, alone.seconds / together.seconds
    even = _met(spread <= READERS_SPREAD)
    return [
        f"{work}: the slowest took {spread:.2f} of the fastest, aim {READERS_SPREAD:g}: {even}",
        f"{work}: {factor:.2f}x one by one, aim 1x: {_met(factor >= 1)}",
    ]


def _met(yes: bool) -> str:
    return "met" if yes else "MISSED"
