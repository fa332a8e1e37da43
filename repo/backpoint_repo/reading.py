"""Reading a point while others prune and collect: a lease that pins it, for as long as it takes.

For commands that read without a mount (restore, cp, a proof). Decides that the lease comes first
and the look whether the point stands after it, so that it is either kept or known to be gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backpoint_repo.catalog import standing_point
from backpoint_repo.errors import ObjectMissing, RepositoryError, StoreUnavailable
from backpoint_repo.lease import READ, SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.pin import pin_of
from backpoint_repo.point import POINT_ID_SIZE, Point
from backpoint_repo.repository import Repository


@contextmanager
def reading(
    repository: Repository, point: Point, on_trouble: Callable[[str], None]
) -> Iterator[None]:
    """What the point needs stays, even when it is removed meanwhile.

    on_trouble: told, in a sentence, where a store that cannot be written gives no protection.
    Raises ObjectMissing where the point is gone.
    """
    lease = _lease(repository, point, on_trouble)
    try:
        if lease is None:
            repository.point(point.point_id)  # nothing is pinned: whatever is known of it will do
        else:
            _require_standing(repository, point)
            lease.keep_fresh(lambda error: on_trouble(_unprotected(error)))
        yield
    finally:
        if lease is not None:
            lease.release()


def _require_standing(repository: Repository, point: Point) -> None:
    if standing_point(repository.sealed, point.point_id) is None:
        raise ObjectMissing(f"points/{point.point_id.hex()} was revoked; there is no such point")


def _lease(repository: Repository, point: Point, on_trouble: Callable[[str], None]) -> Lease | None:
    session = secrets.token_bytes(POINT_ID_SIZE)
    # What it reads is pinned from the first: no trash that comes later holds anything else of it.
    terms = LeaseTerms(READ, SEEN_ALL, (pin_of(point),))
    try:
        return Lease(repository.sealed, session, terms, repository.clock)
    except StoreUnavailable as error:
        on_trouble(_unprotected(error))
        return None


def _unprotected(error: RepositoryError) -> str:
    return f"if this point is pruned while it is read, reading it will fail: {error}"
