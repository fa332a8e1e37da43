"""The ledger: every outside effect, written down before it is asked for.

An append-only local file, one JSON line an entry, fsynced before the effect happens. What is open
in it after a crash is what the reaper looks for. Knows no vCenter: it decides what is written, in
which order, and that a torn last line is no entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

EffectKind = Literal[
    "snapshot",  # of a VM; facts: name (unique, ours), moref once known
    "freeze",  # a pre-freeze script ran; its post-thaw must
    "change-tracking",  # was switched off to be reset, and must be on again
    "hotadd",  # a disk attached to the proxy VM; facts: proxy, file, device_key once known
    "export-lease",  # an HttpNfcLease; facts: moref once known
    "restored-machine",  # a VM that a restore is making; facts: name, folder, moref once known
    "restore-over",  # an existing VM whose disks are being overwritten
]


@dataclass(frozen=True)
class Effect:
    """One entry that is open. vm: moref; facts: texts that find the effect again."""

    number: str
    kind: EffectKind
    vcenter: str
    vm: str
    vm_name: str
    facts: dict[str, str]
    at: float


class Ledger:
    """One process's view of the ledger in `folder`; several processes may have it open.

    Every process writes a file of its own (so no lock is waited for); a file whose process is gone
    and that has nothing open is deleted. Thread-safe. All methods raise StoreUnavailable-like
    trouble as `errors.VSphereError` never: a ledger that cannot be written is a UsageError naming
    the path, and the effect must not happen.
    """

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def __enter__(self) -> Ledger:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    def intend(
        self, kind: EffectKind, vcenter: str, vm: str, vm_name: str, facts: dict[str, str]
    ) -> Effect:
        """Write down what is about to be asked for; durable when it returns."""
        raise NotImplementedError

    def learned(self, effect: Effect, facts: dict[str, str]) -> Effect:
        """Add what became known (the snapshot's moref); the effect with all its facts."""
        raise NotImplementedError

    def undone(self, effect: Effect, how: str) -> None:
        """The effect is gone, by us ("removed") or by others ("was not there")."""
        raise NotImplementedError

    def open_effects(self) -> list[Effect]:
        """What processes that are gone have left open, oldest first: the reaper's work."""
        raise NotImplementedError
