"""Failures as errno: what the file system's operations raise, and what of it goes to the log.

Which failure is which errno is for `errno_map.py`; this decides that nothing else gets to pyfuse3.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from backpoint_fusefs.errno_map import errno_of, errno_of_system, is_everyday
from backpoint_fusefs.realm import NotAFile, NotAFolder, OtherVolume, ReadOnly, Stale
from backpoint_fusefs.told_once import ToldOnce
from backpoint_repo.errors import BackpointError

_REFUSALS: Final[dict[type[Exception], int]] = {
    Stale: errno.ESTALE,
    NotAFolder: errno.ENOTDIR,
    NotAFile: errno.EISDIR,
    ReadOnly: errno.EROFS,
    OtherVolume: errno.EXDEV,
}
_LOG = logging.getLogger("backpoint.mount")


class Telling(Protocol):
    """tell: says a failure in the log, once."""

    tell: ToldOnce


_S = TypeVar("_S", bound=Telling)
_P = ParamSpec("_P")
_T = TypeVar("_T")
_Method = Callable[Concatenate[_S, _P], Awaitable[_T]]
_Answered = Callable[Concatenate[_S, _P], Coroutine[Any, Any, _T]]


def answering(method: _Method[_S, _P, _T]) -> _Answered[_S, _P, _T]:
    """An operation that reads: failures of the repository, of guests and of disks become errno."""
    return _answering(method, fuse_error)


def answering_change(method: _Method[_S, _P, _T]) -> _Answered[_S, _P, _T]:
    """An operation that changes a session: what the system says to that is passed on."""
    return _answering(method, _change_error)


def _answering(
    method: _Method[_S, _P, _T], failed: Callable[[Exception, str, ToldOnce], FUSEError]
) -> _Answered[_S, _P, _T]:
    @functools.wraps(method)
    async def answered(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            # pyfuse3 ends the mount for all its users on any other exception.
            raise failed(error, method.__name__, self.tell) from error

    return answered


def fuse_error(error: Exception, what: str, tell: ToldOnce) -> FUSEError:
    """what: was being done, for the log."""
    if type(error) in _REFUSALS:
        return FUSEError(_REFUSALS[type(error)])
    if isinstance(error, BackpointError):
        tell(f"{what}: {error}")
        return FUSEError(errno_of(error))
    # What is read here may be damaged or hostile in ways nobody thought of; that costs one request.
    _LOG.error("%s failed", what, exc_info=error)
    return FUSEError(errno.EIO)


def _change_error(error: Exception, what: str, tell: ToldOnce) -> FUSEError:
    if isinstance(error, OSError):
        if not is_everyday(error):
            tell(f"{what}: {error}")
        return FUSEError(errno_of_system(error))
    return fuse_error(error, what, tell)
