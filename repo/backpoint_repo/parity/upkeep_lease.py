"""One upkeep of parity at a time: two at once would make every group twice.

Nobody else needs to heed this lease. It refers to no pack, so no collector waits for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from backpoint_repo.errors import RepositoryError
from backpoint_repo.lease import SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.lease_book import read_leases
from backpoint_repo.sealed_store import SealedStore

PARITY: Final = "parity"
"""The lease's purpose."""
_SESSION_SIZE: Final = 16


@contextmanager
def upkeep_lease(
    sealed: SealedStore,
    clock: Callable[[], float],
    on_trouble: Callable[[RepositoryError], None],
) -> Iterator[None]:
    """Held while the block runs. Raises RepositoryError where somebody else holds one."""
    session = secrets.token_bytes(_SESSION_SIZE)
    lease = Lease(sealed, session, LeaseTerms(PARITY, SEEN_ALL), clock)
    try:
        # Own first, then others: of two that begin together at least one sees the other.
        for other in read_leases(sealed):
            same = other.purpose == PARITY and other.session != session
            if same and not other.looks_expired(clock()):
                raise RepositoryError(f"parity is being brought up to date already: {other.title}")
        lease.keep_fresh(on_trouble)
        yield
    finally:
        lease.release()
