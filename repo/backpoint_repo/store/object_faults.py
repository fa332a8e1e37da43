"""What an object store's errors mean: try again, denied, missing, or set up wrongly.

The library tells them apart by class only in part; the rest is in the text of the answer.
"""

from __future__ import annotations

from obstore import exceptions

from backpoint_repo.errors import (
    ObjectExists,
    ObjectMissing,
    RepositoryError,
    StoreDenied,
    StoreMisconfigured,
    StoreUnavailable,
)


class Temporary(StoreUnavailable):
    """Trying again may help."""


class OutOfRange(RepositoryError):
    """A range that begins behind the object's end."""


def sorted_fault(error: Exception, doing: str, address: str) -> RepositoryError:
    """What to raise instead of an error of the library. doing: `read points/ab`."""
    text = str(error)
    if "NoSuchBucket" in text:
        return StoreMisconfigured(f"{address}: there is no such bucket")
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{doing}: it is missing in {address}")
    if isinstance(error, exceptions.AlreadyExistsError):
        return ObjectExists(f"{doing}: it exists")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return StoreDenied(f"cannot {doing} in {address}: denied")
    if "416 Range Not Satisfiable" in text:
        return OutOfRange(doing)
    return Temporary(f"cannot {doing} in {address}: {text.splitlines()[0][:300]}")
