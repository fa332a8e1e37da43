"""Which errno a failure of the repository, or of a session's own disk, becomes: the one table.

Lost data is EIO and not ENOENT: the file is there, and a copy that passes over it must not look
complete. What is not in the table is EIO too.
"""

from __future__ import annotations

import errno
from typing import Final

from backpoint_fusefs.live.errors import NoSuchSession, SessionDamaged, SessionFrozen, SessionInUse
from backpoint_repo.errors import BackpointError, KeyFault, RepositoryError, UsageError

_TABLE: Final[tuple[tuple[type[BackpointError], int], ...]] = (
    (RepositoryError, errno.EIO),
    (KeyFault, errno.EACCES),
    (SessionInUse, errno.EBUSY),
    (SessionFrozen, errno.EROFS),
    (SessionDamaged, errno.EIO),
    (NoSuchSession, errno.ESTALE),
    (UsageError, errno.EINVAL),
)
_PASSED_ON: Final = frozenset(
    {
        errno.EDQUOT,
        errno.EEXIST,
        errno.EFBIG,
        errno.EINVAL,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.EPERM,
        errno.EROFS,
    }
)
"""What a system call on a session's files may say to a guest: the rest would mislead it."""
_EVERYDAY: Final = _PASSED_ON - {errno.EDQUOT, errno.ENOSPC}


def errno_of(error: BackpointError) -> int:
    """What a program that reads the mount is told."""
    return next((number for kind, number in _TABLE if isinstance(error, kind)), errno.EIO)


def errno_of_system(error: OSError) -> int:
    """What a program that changes a session is told."""
    return error.errno if error.errno in _PASSED_ON else errno.EIO


def is_everyday(error: OSError) -> bool:
    """Whether programs run into it all the time, so that no log need tell of it."""
    return error.errno in _EVERYDAY
