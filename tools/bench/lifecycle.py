"""Years of a repository: old points go, their space comes back, the index is made anew.

Decides two scenes: one of a size that every tool can do (three states of a disk, the newest is
kept), where tools are compared; and 10 million chunks, where only our own aims are judged: its
content is synthetic (`synthetic_repository.py`), and so nothing of it is compacted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tools.bench.archivers import PASSPHRASE, Archiver, Backpoint, stored_bytes
from tools.bench.points import fill_with_points
from tools.bench.process import Command, Usage
from tools.bench.reads import drop_caches
from tools.bench.report import OURS, Row
from tools.bench.session import Session, best_of
from tools.bench.synthetic_repository import TEN_MILLION, Layout, fill_synthetic

NAME = "lifecycle"
THIN = "keep the newest of 3 states"
PRUNE_MANY = "prune 10,000 of 100,000 points"
COLLECT, REBUILD = "collect, 10 M chunks", "rebuild-index, 10 M chunks"
PRUNE = "prune, 10 M chunks"
_POINTS = 100_000
_QUICK = Layout(vms=4, leaves=390, days=10, changed=11)
_BIG_DATA = 1 << 30
"""From this size of data on the synthetic repository has 10 M chunks, below a tenth of it."""


def run(session: Session) -> None:
    """Append the rows of this benchmark to the session."""
    samples: list[Row] = []
    able = list(session.archivers)
    for number in range(session.runs):
        for archiver in list(able):
            session.say(f"lifecycle: run {number + 1} of {session.runs}, {archiver.name}")
            rows = _thinned(session, archiver)
            if not session.collect(NAME, THIN, archiver.name, samples, rows):
                able.remove(archiver)
    for archiver in able:
        if isinstance(archiver, Backpoint):
            session.say("lifecycle: 100,000 points")
            session.collect(NAME, PRUNE_MANY, OURS, samples, _many_points(session, archiver))
            session.say("lifecycle: 10 M chunks")
            session.collect(NAME, COLLECT, OURS, samples, _ten_million(session, archiver))
    session.rows += best_of(samples)


def _thinned(session: Session, archiver: Archiver) -> Iterator[Row]:
    """All three states of one VM; two go. What is left of them is shared with the third."""
    fleet = session.disks.fleet(session.sizes.data)
    repo = session.work / "lifecycle-repo"
    archiver.forget(repo)
    session.runner.run(archiver.create(repo))
    for disk in (fleet.day1, fleet.day2, fleet.other):
        # The same name each time: restic and borg take another path for another machine.
        session.runner.run(archiver.backup(repo, "web01", disk))
    before = stored_bytes(repo)
    used = [session.runner.run(command) for command in archiver.thin(repo, "web01")]
    after = stored_bytes(repo)
    yield _row(THIN, archiver.name, used, after, f"{before / 1e6:.0f} MB before")
    archiver.forget(repo)


def _many_points(session: Session, archiver: Backpoint) -> Iterator[Row]:
    repo = session.work / "lifecycle-points"
    archiver.forget(repo)
    session.runner.run(archiver.create(repo))
    fill_with_points(repo, PASSPHRASE, _POINTS)
    command = _command(archiver, repo, "prune", "--keep-last", "90")
    yield _row(PRUNE_MANY, OURS, [session.runner.run(command)])
    archiver.forget(repo)


def _ten_million(session: Session, archiver: Backpoint) -> Iterator[Row]:
    repo = session.work / "lifecycle-synthetic"
    archiver.forget(repo)
    layout = TEN_MILLION if session.sizes.data >= _BIG_DATA else _QUICK
    fill_synthetic(repo, PASSPHRASE, layout)
    size = f"{layout.chunks:,} chunks, {_packs(repo):,} packs"
    steps = {
        PRUNE: ("prune", "--keep-last", "5"),
        COLLECT: ("collect", "--max-repack", "0"),
        REBUILD: ("rebuild-index",),
    }
    for work, words in steps.items():
        drop_caches()
        used = session.runner.run(_command(archiver, repo, *words))
        yield _row(work, OURS, [used], note=size)
        size = f"{_packs(repo):,} packs after"
    archiver.forget(repo)


def _row(work: str, tool: str, used: list[Usage], stored: int | None = None, note: str = "") -> Row:
    return Row(
        NAME,
        work,
        tool,
        seconds=sum(one.seconds for one in used),
        cpu_s=sum(one.cpu_s for one in used),
        peak_rss=max(one.peak_rss for one in used),
        stored=stored,
        note=note,
    )


def _packs(repo: Path) -> int:
    return sum(1 for _ in repo.glob("packs/*/*"))


def _command(archiver: Backpoint, repo: Path, *words: str) -> Command:
    return Command(
        (archiver.executable, "-r", str(repo), *words), env={"BACKPOINT_PASSPHRASE": PASSPHRASE}
    )
