"""What has come of a copy: counts, what failed, and what could not be kept.

Decides that a failure is told at once, by its path, and what is not kept once for all at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from backpoint_fusefs.guest.guest_tree import shown
from backpoint_repo.errors import BackpointError

_FAILURES_KEPT: Final = 1000


@dataclass
class _Shortfall:
    """Something that many files lack in the copy, with the first of them and the reason there."""

    first: str
    reason: str
    count: int = 0


@dataclass
class CopyReport:
    """links: symbolic ones; hard_links: names beyond a file's first; specials: devices and such.
    exit_code: of the first failure, 0 where there is none. tell: gets a line about a failure; warn:
    about something less."""

    tell: Callable[[str], None]
    warn: Callable[[str], None]
    files: int = 0
    folders: int = 0
    links: int = 0
    hard_links: int = 0
    specials: int = 0
    bytes_copied: int = 0
    failed: int = 0
    exit_code: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    _shortfalls: dict[str, _Shortfall] = field(default_factory=dict)

    def failure(self, path: bytes, error: BackpointError) -> None:
        """One file, or the rest of a folder, is not in the copy."""
        self.failed += 1
        self.exit_code = self.exit_code or error.exit_code
        if len(self.failures) < _FAILURES_KEPT:
            self.failures.append((shown(path), str(error)))
        self.tell(f"{shown(path)}: {error}")

    def shortfall(self, what: str, path: bytes, reason: str) -> None:
        """A copied file lacks something. what: `owners`."""
        known = self._shortfalls.setdefault(what, _Shortfall(shown(path), reason))
        known.count += 1

    def warn_of_shortfalls(self) -> None:
        """To be called at the end."""
        for what, found in self._shortfalls.items():
            more = f" and {found.count - 1} more" if found.count > 1 else ""
            self.warn(f"{what} not kept: {found.first}{more} ({found.reason})")

    def record(self) -> dict[str, Any]:
        """As JSON; failures beyond a thousand are only counted."""
        return {
            "files": self.files,
            "folders": self.folders,
            "links": self.links,
            "hard_links": self.hard_links,
            "specials": self.specials,
            "bytes": self.bytes_copied,
            "failed": self.failed,
            "failures": [{"path": path, "problem": why} for path, why in self.failures],
            "not_kept": {what: found.count for what, found in self._shortfalls.items()},
        }
