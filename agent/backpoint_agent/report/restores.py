"""How fast restores were here: what the estimate of a recovery is made from.

Decides how many are remembered. Refuses to know how a VM is restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from backpoint_agent.report.numbered_files import read_numbered, save_numbered
from backpoint_agent.state_folder import StateFolder

KEPT: Final = 100
_COUNTED: Final = 10
_TYPES: Final = frozenset({"restored-machine", "restored-over"})


def save_restore(state: StateFolder, record: dict[str, Any], at: float) -> None:
    """Remember a restore. record: of `restoring.restore_report`; at: seconds since 1970.

    Raises UsageError, Busy, OSError.
    """
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    save_numbered(state.path / "restores", name, record, KEPT)


def restore_rate(state: StateFolder, tell: Callable[[str], object]) -> float | None:
    """Bytes of disks a second over the last restores of whole VMs; None where there was none."""
    found = read_numbered(state.path / "restores", tell)
    figures = [_figures(record) for _, record in islice(found, _COUNTED)]
    size = sum(size for size, _ in figures)
    seconds = sum(seconds for _, seconds in figures)
    return size / seconds if size and seconds > 0 else None


def _figures(record: dict[str, Any]) -> tuple[int, float]:
    """Bytes and seconds; nothing of what is no restore."""
    try:
        seconds = float(record["duration_s"])
        size = sum(int(disk["size"]) for disk in record["disks"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0, 0.0
    real = record.get("type") in _TYPES and not record.get("dry_run")
    return (size, seconds) if real and size > 0 and 0 < seconds < 1e9 else (0, 0.0)
