"""Writing what heals: a lease, then what is stored, then new copies, packs before the segment that
names them.

Nothing is stored but wanted content whose id was just verified, and nothing is deleted. A healer
publishes no point and leaves every decision on what is dead to collectors: a pack that holds what a
point needs is not dead, so its lease lets trash be swept and guards only packs that are not done.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Final

from blake3 import blake3

from backpoint_repo.backup_session import WORKERS
from backpoint_repo.blob_writer import BlobWriter
from backpoint_repo.errors import BackpointError
from backpoint_repo.exclusions import mark_damaged, read_exclusions
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import Kind
from backpoint_repo.healing.sealed_copy import SealedCopy
from backpoint_repo.healing.wanted import Wanted
from backpoint_repo.index import ids_of
from backpoint_repo.index_segment import PackRef
from backpoint_repo.lease import SEEN_ALL, Lease, LeaseTerms
from backpoint_repo.node_reader import node_id_of
from backpoint_repo.pack_stream import uploads_at_once
from backpoint_repo.point import POINT_ID_SIZE
from backpoint_repo.repository import Repository
from backpoint_repo.verbatim_copy import VerbatimCopies

HEAL: Final = "heal"
_NOTES_MAX: Final = 20

Plain = bytes | memoryview


class HealSession:
    """A context manager, for one thread. notes: what the user is to know."""

    def __init__(self, repository: Repository) -> None:
        """Put the lease, then read trash, then learn what is stored: `repository.index` knows it.

        Raises UnknownFormat, and what a store raises.
        """
        sealed = self._sealed = repository.sealed
        refuse_unknown_features(sealed.store)
        index = self._index = repository.index
        self._clock = repository.clock
        self.notes: list[str] = []
        session = secrets.token_bytes(POINT_ID_SIZE)
        self._lease = Lease(sealed, session, LeaseTerms(HEAL, SEEN_ALL), repository.clock)
        self.workers = ThreadPoolExecutor(WORKERS, "heal")
        self._uploads = ThreadPoolExecutor(uploads_at_once(sealed.store), "upload")
        try:
            self._lease.keep_fresh(lambda error: self.note(str(error)))
            index.exclude(read_exclusions(sealed))
            index.refresh()
            index.adopt_unlisted_packs()
            self._writer = BlobWriter(sealed, index, session, self.workers, self._uploads)
            self._copies = VerbatimCopies(sealed, index, session)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> HealSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def stored(self) -> int:
        """Sealed bytes of all that was stored so far."""
        return self._writer.written.stored_bytes + self._copies.stored

    def note(self, what: str) -> None:
        """For the user, once."""
        if what not in self.notes and len(self.notes) < _NOTES_MAX:
            self.notes.append(what)

    def store_chunks(self, wanted: Wanted, pieces: Sequence[Plain]) -> None:
        """Seal and store those plain contents that are wanted. Raises what a store raises."""
        key = self._sealed.keyring.chunk_id_key
        ids = list(self.workers.map(lambda piece: blake3(piece, key=key).digest(), pieces))
        self.store_known(wanted, ids, pieces)

    def store_known(self, wanted: Wanted, ids: Sequence[bytes], pieces: Sequence[Plain]) -> None:
        """As `store_chunks`; the caller has just computed the ids from the pieces."""
        numbers = wanted.find(Kind.DATA_PACK, ids_of(list(ids))) if ids else []
        hits = {number: at for at, number in enumerate(numbers) if number >= 0}
        at = list(hits.values())
        jobs = self._writer.start([ids[i] for i in at], lambda i: pieces[at[i]])
        self._writer.finish(jobs)
        for number in hits:
            wanted.close(number)

    def store_node(self, wanted: Wanted, plain: bytes) -> bytes:
        """Store a map node if it is wanted; its id in any case."""
        node_id = node_id_of(plain, self._sealed.keyring.node_id_key)
        (number,) = wanted.find(Kind.NODE_PACK, ids_of([node_id]))
        if number >= 0:
            self._writer.save_node(plain)
            wanted.close(number)
        return node_id

    def copy(self, wanted: Wanted, number: int, found: SealedCopy) -> None:
        """Store a verified blob as it is."""
        kind, content_id = wanted.key(number)
        self._copies.add(kind, content_id, found.blob, found.plain_length, found.data_key)
        wanted.close(number)

    def mark(self, copies: Iterable[tuple[bytes, PackRef]]) -> None:
        """Copies just found bad: nobody shall stand on them, and new ones count."""
        known = self._index.exclusions
        fresh = frozenset(copies) - known.damaged
        if fresh:
            mark_damaged(self._sealed, fresh, self._clock())
            self._index.exclude(replace(known, damaged=known.damaged | fresh))

    def flush(self) -> None:
        """Return when all is durable and indexed."""
        self._writer.flush()
        self._copies.flush()

    def _close(self) -> None:
        self._lease.release()
        self.workers.shutdown(cancel_futures=True)
        self._uploads.shutdown(cancel_futures=True)


def trouble_of(error: BackpointError) -> str:
    """What a note says of something that could not be read now."""
    return f"could not look at: {error}"
