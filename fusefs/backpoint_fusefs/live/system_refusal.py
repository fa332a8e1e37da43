"""What the system refuses of a session's files (no space, no permission), told to the user.

Decides whose affair it is, by the errno, and what can be done about it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from backpoint_fusefs.live.errors import SessionStorageFailed
from backpoint_repo.errors import BackpointError, UsageError

_ROOM: Final = "make room there (`live discard` frees what a session takes) and try again"
_RIGHTS: Final = "run this as the user whose folder it is"
_OF_THE_USER: Final[Mapping[int, str]] = {
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "mount its file system writable, or name another folder by --live",
    errno.ENOENT: "somebody has removed it, or part of it",
    errno.ENOTDIR: "something else is in its place",
    errno.ENAMETOOLONG: "give a shorter name",
}
_OF_THE_SYSTEM: Final[Mapping[int, str]] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "its disk fails, and the kernel's log tells more; what was synced before stands",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "the system has no more open files to give",
    errno.ESTALE: "its file server has lost it",
}


def refusal(error: OSError, what: str = "") -> BackpointError:
    """what: begins the sentence. UsageError where the user can put it right in what was given,
    SessionStorageFailed where the machine is in the way."""
    number = error.errno or 0
    said = error.strerror or str(error)
    remedy = _OF_THE_USER.get(number) or _OF_THE_SYSTEM.get(number)
    sentence = (f"{what}: " if what else "") + said + (f"; {remedy}" if remedy else "")
    return UsageError(sentence) if number in _OF_THE_USER else SessionStorageFailed(sentence)


@contextmanager
def told(what: str) -> Iterator[None]:
    """what: begins the sentence. Raises what `refusal` makes of it in place of OSError."""
    try:
        yield
    except OSError as error:
        raise refusal(error, what) from error
