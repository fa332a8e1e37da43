"""The disks that a power cut may leave, given what was asked of the operating system until then.

Promises only what POSIX does. Content of a file is safe once the file was fsynced; a name, or its
absence, once the folder it is in was. What was not may be there or not, each for itself, and
content may be anything between. Knows nothing of repositories.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from faults.power_cut_journal import TOP, Journal, Named, Promised, Synced, Wrote


class Unsynced(NamedTuple):
    """At a cut: what may be kept or lost. last: of all of them."""

    at: int
    step: Named
    last: bool


class Fate:
    """What becomes of what was not synced."""

    def __init__(self, name: str, keeps: Callable[[Unsynced], bool], content: str = "kept") -> None:
        self.name = name
        self.keeps = keeps
        self.content = content

    def spoil(self, safe: bytes, written: bytes, rng: random.Random) -> bytes:
        """What is in a file. safe: as last synced; written: as last written."""
        how = self.content
        if how == "any":
            how = rng.choice(("kept", "dropped", "emptied", "truncated", "zeros", "garbled"))
        if how == "dropped":
            return safe
        if how == "emptied":
            return b""
        if how == "truncated":
            return written[: rng.randrange(max(1, len(written)))]
        if how == "zeros":
            return safe + bytes(max(0, len(written) - len(safe)))
        if how == "garbled":
            at, length = rng.randrange(max(1, len(written))), rng.randint(1, 4096)
            return (written[:at] + rng.randbytes(length) + written[at + length :])[: len(written)]
        return written


@dataclass(frozen=True)
class Disk:
    """What is there when the power is back: path -> content, None for a folder.

    cut: how many steps had been made. promised: what had been told by then."""

    cut: int
    fate: str
    tree: dict[str, bytes | None]
    promised: frozenset[str]

    def write(self, top: Path) -> None:
        """Lay it down in a folder that does not exist."""
        top.mkdir()
        for path, content in self.tree.items():
            if content is None:
                (top / path).mkdir()
            else:
                (top / path).write_bytes(content)


def disks_after_cuts(journal: Journal, seed: int, samples: int) -> list[Disk]:
    """Every disk that the simple fates leave at each cut, and `samples` random ones at each.

    Of equal disks the one with the most promises stays. What is in folders called `tmp` counts for
    no difference, and is random.
    """
    found: dict[int, Disk] = {}
    for cut in range(journal.before, len(journal.steps) + 1):
        steps = journal.steps[:cut]
        promised = frozenset(step.what for step in steps if isinstance(step, Promised))
        for fate in _fates(unsynced(journal, cut), samples, f"{seed} {cut}"):
            rng = random.Random(f"{seed} {cut} {fate.name}")
            disk = Disk(cut, fate.name, _tree(journal, cut, fate, rng), promised)
            found[_print(disk.tree)] = disk
    return list(found.values())


def _fates(pending: list[Unsynced], samples: int, seed: str) -> Iterator[Fate]:
    yield Fate("all kept", lambda _: True)
    yield Fate("all lost", lambda _: False, "dropped")
    yield Fate("only the last kept", lambda found: found.last)
    yield Fate("only the last lost", lambda found: not found.last)
    yield Fate("names kept, none absent", lambda found: found.step.node is not None)
    for content in ("dropped", "emptied", "truncated", "zeros", "garbled"):
        yield Fate(f"names kept, content {content}", lambda _: True, content)
    everything = frozenset(one.at for one in pending)
    for at in everything:
        yield _fate_of(f"{at} lost", everything - {at}, "kept")
        yield _fate_of(f"{at} kept", frozenset({at}), "any")
    for number in range(samples):
        rng = random.Random(f"{seed} {number}")
        kept = frozenset(at for at in sorted(everything) if rng.random() < 0.5)
        yield _fate_of(f"random {number}", kept, "any")


def _fate_of(name: str, kept: frozenset[int], content: str) -> Fate:
    return Fate(name, lambda found: found.at in kept, content)


def unsynced(journal: Journal, cut: int) -> list[Unsynced]:
    """Names that may be lost, but for those in tmp."""
    temporary = _temporary(journal)
    safe = _safe(journal, cut)
    pending = [
        (at, step)
        for at, step in enumerate(journal.steps[:cut])
        if isinstance(step, Named) and at > safe[step.folder] and step.folder not in temporary
    ]
    return [Unsynced(at, step, (at, step) == pending[-1]) for at, step in pending]


def _temporary(journal: Journal) -> set[int]:
    return {
        step.node
        for step in journal.steps
        if isinstance(step, Named) and step.name == "tmp" and step.node is not None
    }


def _safe(journal: Journal, cut: int) -> dict[int, int]:
    """node -> the number of its last sync."""
    safe: dict[int, int] = defaultdict(lambda: -1)
    for at, step in enumerate(journal.steps[:cut]):
        if isinstance(step, Synced):
            safe[step.node] = at
    return safe


def _tree(journal: Journal, cut: int, fate: Fate, rng: random.Random) -> dict[str, bytes | None]:
    safe, temporary = _safe(journal, cut), _temporary(journal)
    pending = unsynced(journal, cut)
    last = pending[-1].at if pending else -1
    names: dict[int, dict[str, int | None]] = defaultdict(dict)
    contents: dict[int, tuple[bytes, bytes]] = defaultdict(lambda: (b"", b""))
    for at, step in enumerate(journal.steps[:cut]):
        if isinstance(step, Named):
            sure = at <= safe[step.folder]
            if step.folder in temporary and not sure:
                kept = rng.random() < 0.5
            else:
                kept = sure or fate.keeps(Unsynced(at, step, at == last))
            if kept:
                names[step.folder][step.name] = step.node
        elif isinstance(step, Wrote):
            before = contents[step.node][0]
            contents[step.node] = (step.content if at <= safe[step.node] else before, step.content)
    tree: dict[str, bytes | None] = {}

    def lay(folder: int, prefix: str) -> None:
        for name, node in sorted(names[folder].items()):
            if node is None:
                continue
            if node in journal.folders:
                tree[prefix + name] = None
                lay(node, f"{prefix}{name}/")
            else:
                known, written = contents[node]
                dirty = known != written
                tree[prefix + name] = fate.spoil(known, written, rng) if dirty else known

    lay(TOP, "")
    return tree


def _print(tree: dict[str, bytes | None]) -> int:
    """Equal for disks that differ in tmp alone. A content's own hash is worked out once."""
    return hash(frozenset(item for item in tree.items() if "/tmp/" not in item[0]))
