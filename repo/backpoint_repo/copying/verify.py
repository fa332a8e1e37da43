"""Is a copy what its original is? Read back from the place it was copied to, from end to end.

Decides what is compared. Where the keys are the same: every sealed blob of the copy with what the
original's packs promise; no data key is needed. Where they differ: the plain content of every disk
and file; that needs both owners' keys. Without them all blobs of the copy are read back and held
against their own packs, and what that leaves open is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Final

from backpoint_repo.copying.verify_content import ContentComparison, Pair
from backpoint_repo.copying.verify_sealed import SealedReadBack
from backpoint_repo.phase_progress import PhaseProgress, Silent
from backpoint_repo.point import Point
from backpoint_repo.replica import same_keys
from backpoint_repo.repository import Repository

_TOLD_MAX: Final = 20


def _untold(_: str) -> None:
    pass


def verify_copy(
    source: Repository,
    target: Repository,
    original: Point,
    copied: Point,
    progress: PhaseProgress | None = None,
    tell: Callable[[str], None] = _untold,
    beside: Pair | None = None,
) -> list[str]:
    """What is wrong with `copied`, a point of `target`: sentences, the first twenty; empty where
    all is well. The caller holds leases on both (`reading.py`).

    progress: a phase for each disk, in bytes of it. tell: of what could not be compared. beside:
    another copy that was found good in this run; what this one shares with it is not read again.
    Raises StoreUnavailable.
    """
    problems: list[str] = []
    pair = Pair(original, copied)
    for problem in _problems(source, target, pair, progress or Silent(), tell, beside):
        problems.append(problem)
        if len(problems) == _TOLD_MAX:
            break
    return problems


def _problems(
    source: Repository,
    target: Repository,
    pair: Pair,
    progress: PhaseProgress,
    tell: Callable[[str], None],
    beside: Pair | None,
) -> Iterator[str]:
    original, copied = pair.original, pair.copied
    stored = beside.copied if beside else None
    yield from _record_differences(original, copied)
    if same_keys(source, target):
        if [disk.root for disk in original.disks] != [disk.root for disk in copied.disks]:
            yield "the maps of its disks are others than those of the original"
        if original.files != copied.files:
            yield "its configuration files are others than those of the original"
        yield from SealedReadBack(target, source, stored).problems(copied, progress, tell)
    elif all(one.sealed.keyring.owner_private is not None for one in (source, target)):
        yield from ContentComparison(source, target).problems(pair, progress, beside)
    else:
        tell(
            "the content of the copy was not compared with the original's: the keys differ, and "
            "that needs both owners' passphrases; its sealed data was read back"
        )
        yield from SealedReadBack(target, None, stored).problems(copied, progress, tell)


def _record_differences(original: Point, copied: Point) -> Iterator[str]:
    for name in ("vm", "time", "label", "consistency"):
        if getattr(original, name) != getattr(copied, name):
            yield f"its {name} is another than the original's"
    for disk, copy in zip_longest(original.disks, copied.disks):
        if disk is None or copy is None or (disk.key, disk.size) != (copy.key, copy.size):
            yield f"disk {(disk or copy).key} is missing in one of both, or has another size"
    for file, twin in zip_longest(original.files, copied.files):
        if file is None or twin is None or (file.name, file.size) != (twin.name, twin.size):
            yield f"file {(file or twin).name} is missing in one of both, or has another size"
