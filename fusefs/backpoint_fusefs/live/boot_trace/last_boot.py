"""What the last proved boot of a VM read, for its next boot to have fetched ahead.

Decides that this never stands in a boot's way: without it, the boot is only slower.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from backpoint_fusefs.live.boot_trace.trace_files import put_ranges_ahead
from backpoint_repo.errors import RepositoryError
from backpoint_repo.point_proof import newest_trace
from backpoint_repo.repository import Repository


def put_last_boot_ahead(repository: Repository, vm: str, session: Path) -> None:
    """The mount that opens this session next fetches it, in order. vm: whose session it is."""
    with suppress(OSError, RepositoryError):
        own = [point.point_id for point in repository.catalog.refresh() if point.vm == vm]
        if found := newest_trace(repository.sealed, own):
            put_ranges_ahead(session, found[1])
