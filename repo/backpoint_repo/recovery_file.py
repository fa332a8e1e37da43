"""A recovery key written to a file, for a person to print and lock away.

The first line is the key alone, so that the file itself can be given wherever a passphrase file is
taken.
"""

from __future__ import annotations

from pathlib import Path

from backpoint_repo.credential import write_secret_file
from backpoint_repo.errors import BackpointError
from backpoint_repo.key_slots import ScryptCost, Slot, add_slot
from backpoint_repo.point_selector import format_time
from backpoint_repo.recovery_key import format_recovery_key, new_recovery_key
from backpoint_repo.repository import Repository

_LABEL = "recovery key"


def add_recovery_key(repository: Repository, path: Path) -> Slot:
    """A new key slot, and its key in a new file of mode 0600.

    The file comes first: a slot whose key nobody has is no use, and harder to see than a file.
    Raises UsageError where the file exists or cannot be written, and what a store raises.
    """
    key, now = format_recovery_key(new_recovery_key()), repository.clock()
    write_secret_file(path, _text(key, repository, now))
    try:
        return add_slot(repository.sealed, key, _LABEL, ScryptCost(), now)
    except BackpointError:
        path.unlink(missing_ok=True)
        raise


def _text(key: str, repository: Repository, now: float) -> str:
    return (
        f"{key}\n\n"
        f"Backpoint recovery key of repository {repository.config.repository_id.hex()},\n"
        f"at {repository.sealed.store.address}, made {format_time(now)}.\n"
        "Whoever has this key can read all backups there. Give it in place of a passphrase.\n"
        "Case, spaces and dashes do not matter.\n"
    )
