"""Where on this machine blocks of repositories are cached, and how much room they may take.

Decides the size where nobody names one. Knows neither arguments nor what is cached.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backpoint_repo.errors import UsageError
from backpoint_repo.store.block_cache import BlockCache
from backpoint_repo.store.cached_store import CachedStore
from backpoint_repo.store.contract import Store

LIMIT_MIN: Final = 16 << 20
DEFAULT_MAX: Final = 10 << 30
"""A boot reads 1 to 3 GiB of a disk, so several machines' worth; few notice it in /var."""
DEFAULT_SHARE: Final = 10
"""A tenth of what is free: a volume that holds other things must not be filled unasked."""


@dataclass(frozen=True)
class BlockPlace:
    """Under which folder this machine caches, a folder for each repository in it.

    limit: bytes for one repository; None: `default_limit`. named: somebody asked for it, so where
    it cannot be used that is a mistake; else it is done without. keeps_data: see `CachedStore`.
    tell: called with what is in its way.
    """

    root: Path
    limit: int | None = None
    named: bool = False
    keeps_data: bool = True
    tell: Callable[[str], None] = field(default=lambda _: None)

    def over(self, store: Store, repository_id: bytes, meta_key: bytes) -> Store:
        """The store, read through its cache. Raises UsageError where a named one is no use."""
        folder = self.root / repository_id.hex() / "blocks"
        try:
            limit = self.limit or default_limit(folder, meta_key)
            if limit < LIMIT_MIN:
                self.tell(
                    f"nothing is cached: a tenth of what is free in {self.root} would be too "
                    "little; --cache-size can give it more"
                )
                return store
            cache = BlockCache(folder, meta_key, limit, self.tell)
            cache.make()
        except OSError as error:
            fault = UsageError(f"cannot cache in {error.filename or folder}: {error.strerror}")
        except UsageError as error:
            fault = error
        else:
            return CachedStore(store, cache, keeps_data=self.keeps_data)
        if self.named:
            raise fault
        self.tell(f"nothing is cached: {fault}")
        return store


def default_limit(folder: Path, meta_key: bytes) -> int:
    """A tenth of what is free or cached there already, at most 10 GiB. Raises OSError."""
    there = next(above for above in (folder, *folder.parents) if above.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    return min(DEFAULT_MAX, (free + BlockCache(folder, meta_key, 0).held()) // DEFAULT_SHARE)
