"""What another process does in these tests: a copy that is killed on the way."""

from __future__ import annotations

from pathlib import Path

from backpoint_repo.copying.copier import Copier
from backpoint_repo.repository import open_repository
from backpoint_repo.store.local import LocalStore
from faults.failing_store import deadly_store
from repo.copying.resealed_scene import THERE, copy_all
from small_repository import PASSPHRASE


def copy_dying(here: Path, there: Path, at: int, moment: str) -> None:
    """Copy all that is missing; killed in the n-th changing call of the destination's store."""
    source = open_repository(LocalStore(here), PASSPHRASE)
    copier = Copier(source, open_repository(deadly_store(there, at, moment), THERE))
    copier.look()
    copy_all(copier)
