"""Which errno a failure of the repository becomes: the one table.

Lost data is EIO and not ENOENT: the file is there, and a copy that passes over it must not look
complete. What is not in the table is EIO too.
"""

from __future__ import annotations

import errno
from typing import Final

from backpoint_repo.errors import BackpointError, KeyFault, RepositoryError, UsageError

_TABLE: Final[tuple[tuple[type[BackpointError], int], ...]] = (
    (RepositoryError, errno.EIO),
    (KeyFault, errno.EACCES),
    (UsageError, errno.EINVAL),
)


def errno_of(error: BackpointError) -> int:
    """What a program that reads the mount is told."""
    return next((number for kind, number in _TABLE if isinstance(error, kind)), errno.EIO)
