"""What stands in a point's place: a decision of a removal that mutants changed unnoticed."""

from __future__ import annotations

from backpoint_repo.format import Kind, object_key
from backpoint_repo.lease_book import put_void
from backpoint_repo.repository import Repository
from backpoint_repo.retention.removal import remove_points
from small_repository import NOON, StandingClock, assert_clean


def test_a_void_is_no_point(repository: Repository, clock: StandingClock) -> None:
    """Its session was ended: there is nothing to remove, nothing to complain of, and it stays."""
    session = b"s" * 16
    assert put_void(repository.sealed, session, b"c" * 16, NOON)
    removal = remove_points(repository.sealed, [session], clock)
    assert (removal.removed, dict(removal.spared)) == ((), {})
    assert repository.sealed.store.size(object_key(Kind.POINT, session.hex()))
    assert_clean(repository)
