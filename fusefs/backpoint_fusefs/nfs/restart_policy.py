"""When something that died is started again, and when not any more.

Counts failures in a row; what lived long enough before it died begins a new row. Starts nothing.
"""

from __future__ import annotations

from typing import Final

STEADY_S: Final = 60.0
"""What lived so long was well."""
TRIES: Final = 6
_FIRST_S: Final = 0.5
_LONGEST_S: Final = 30.0


class RestartPolicy:
    """tries: failures in a row that are one too many."""

    def __init__(self, tries: int = TRIES) -> None:
        self._tries = tries
        self._row = 0

    def after_failure(self, lived_s: float) -> float | None:
        """Seconds to wait before the next start, 0 after a first failure; None: give up."""
        self._row = 1 if lived_s >= STEADY_S else self._row + 1
        if self._row >= self._tries:
            return None
        if self._row == 1:
            return 0.0
        return min(_LONGEST_S, _FIRST_S * 2.0 ** (self._row - 2))
