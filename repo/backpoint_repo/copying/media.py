"""A new folder that points are copied to once and that is never written to again: to be burnt,
pressed, or sealed by whoever keeps it.

Decides what such a folder is in the end: a repository like any other, with everything in it that
spares its readers work: one index segment (of at most half a million blobs; more where there are
more) and one catalogue object, no lease and nothing temporary. Its configuration is written last
where it is a replica, so what was cut short is no repository.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Final

from backpoint_repo.catalog import Catalog
from backpoint_repo.errors import UsageError
from backpoint_repo.format import CONFIG_KEY, FOLDERS, Kind, object_key
from backpoint_repo.index import SEGMENT_ENTRIES_MAX
from backpoint_repo.index_segment import IndexTable, decode_table, merge_tables
from backpoint_repo.replica import replicate
from backpoint_repo.repository import Repository
from backpoint_repo.segment_cache import CachePlace
from backpoint_repo.segment_shelf import put_segment, segment_sizes
from backpoint_repo.store.local import TEMPORARY, LocalStore
from backpoint_repo.store.write_once import MediaStore, WriteOnce

_OF_INIT: Final = (CONFIG_KEY, f"{FOLDERS[Kind.SLOT]}/", f"{FOLDERS[Kind.POLICY]}/")
"""What a repository has that was just made."""


class Media:
    """A context manager. `repository` is what points are copied to; `finish` makes it whole."""

    def __init__(self, like: Repository, folder: Path, *, fresh: bool) -> None:
        """fresh: the folder is missing or empty and becomes a replica of `like`; else `like` is the
        repository in it, which was just made by `init`.

        Raises UsageError where there is anything else, and what a store raises.
        """
        _refuse_used(folder, () if fresh else _OF_INIT)
        self._folder, self._fresh = folder, fresh
        self._lasting = WriteOnce(folder)
        self._scratch = TemporaryDirectory(prefix="backpoint-media-")
        scratch = Path(self._scratch.name)
        store = MediaStore(self._lasting, LocalStore(scratch / "objects"))
        if fresh:
            replicate(like, store)
        sealed = replace(like.sealed, store=store)
        caches = CachePlace(scratch / "cache")
        cache = caches.of(like.config.repository_id, store.address, sealed.keyring.meta_key)
        self.repository = Repository(sealed, like.config, like.clock, cache)

    def __enter__(self) -> Media:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.cleanup()

    def finish(self) -> None:
        """Write what makes it whole; nothing may be copied to it after that. Raises what a store
        raises."""
        working = self.repository.sealed
        lasting = replace(working, store=self._lasting)
        for tables in _portions(self._tables()):
            put_segment(lasting, merge_tables(tables))
        catalog = Catalog(lasting)
        catalog.refresh()
        catalog.complete()
        if self._fresh:
            slots = [object_key(Kind.SLOT, name) for name in sorted(working.names(Kind.SLOT))]
            for key in slots:
                self._lasting.put(key, [working.store.get(key)])
            self._lasting.settle()  # before what makes it a repository
            self._lasting.put(CONFIG_KEY, [working.store.get(CONFIG_KEY)])
        with contextlib.suppress(OSError):  # init may have left it; readers pass it over
            (self._folder / TEMPORARY).rmdir()
        self._lasting.settle()

    def _tables(self) -> Iterator[IndexTable]:
        sealed = self.repository.sealed
        for name in sorted(segment_sizes(sealed)):
            yield decode_table(sealed.get(Kind.INDEX, name), object_key(Kind.INDEX, name))


def _portions(tables: Iterator[IndexTable]) -> Iterator[list[IndexTable]]:
    """As many as make one segment."""
    portion: list[IndexTable] = []
    for table in tables:
        if portion and sum(map(len, portion)) + len(table) > SEGMENT_ENTRIES_MAX:
            yield portion
            portion = []
        portion.append(table)
    if portion:
        yield portion


def _refuse_used(folder: Path, allowed: tuple[str, ...]) -> None:
    for found in LocalStore(folder).list(""):
        if not found.key.startswith(allowed or ("\0",)):
            raise UsageError(
                f"{folder} is not new (it has {found.key}): media are written once, to a missing "
                "or empty folder, or to a repository that was just made by `backpoint init`"
            )
