"""What a repository demands of every program that writes to it: names under `requires/`.

A later version that adds something old writers would spoil (held points, say, or parity) puts its
name here. A program that does not know a name may read and check, and must not write or delete.
"""

from __future__ import annotations

from typing import Final

from backpoint_repo.errors import UnknownFormat
from backpoint_repo.store.contract import Store

FOLDER: Final = "requires/"
KNOWN: Final[frozenset[str]] = frozenset()


def refuse_unknown_features(store: Store) -> None:
    """Raise UnknownFormat where the repository demands what this program does not know."""
    named = {found.key.removeprefix(FOLDER) for found in store.list(FOLDER)}
    if unknown := sorted(named - KNOWN):
        raise UnknownFormat(
            f"this repository requires {', '.join(unknown)}, which this program does not know: it "
            "may read it, not write to it. Use a newer backpoint."
        )
