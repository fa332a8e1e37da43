"""A repository in a bucket: S3, and what speaks as S3 does; Google's and Microsoft's stores.

One conditional put decides who has a key, so it is never repeated blindly: where its answer was
lost, what lies at the key tells whether it arrived. Everything stored is sealed with fresh salts
or has a random id, so equal bytes are ours. An answer is believed only as far as it agrees with
itself: the bytes that came are as many as its headers say, and what is empty was said by an object
store. Which errors mean what is in `object_faults.py`, what an address means in `bucket.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backpoint_repo.errors import ObjectDamaged, ObjectExists, ObjectMissing, StoreUnfit
from backpoint_repo.format import CONFIG_KEY
from backpoint_repo.store.contract import Piece, StoredObject, Tail
from backpoint_repo.store.detached_call import interruptible
from backpoint_repo.store.object_client import ObjectClient
from backpoint_repo.store.object_faults import (
    Doing,
    NoRanges,
    NoSuffixes,
    OutOfRange,
    Taken,
    Temporary,
    no_object_store,
    sorted_fault,
    temporary,
)
from backpoint_repo.store.object_listing import PAGE, Page, is_ordered, list_parts, plan_parts
from backpoint_repo.store.object_retries import Retries

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

T = TypeVar("T")
Wanted = tuple[int, int] | dict[str, int] | None
"""As the library takes it: from one byte to before another, {"suffix": bytes}, or all."""
LANES: Final = 16
OBJECT_MAX: Final = (1 << 30) + (1 << 24)
"""Bytes of the largest object that is legal, and room for its seal."""
_OFFSETS: Final = 1 << 62
_FRAME: Final = 8 << 20
"""Bytes taken at once of an answer's body, or all of it where that is less: in pieces of 64 KiB a
GiB took 1.9 s of processor, in one piece each 0.8 s."""
_BELIEVED_S: Final = 10.0
"""How long one that answered as an object store is taken for one."""
_BEFORE_CONFIG: Final = "confif~"
"""No key comes between it and that of the configuration."""
_IN_ORDER: Final = ("S3Store", "GCSStore")
"""Those that can list from any key on; of others the library reads and drops what is before it."""


class ObjectStore:
    """Thread-safe; the interpreter lock is free while a request is under way. In the main thread a
    signal's exception ends the waiting at once. Works on in a forked process."""

    def __init__(
        self, bucket: Bucket, address: str, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """bucket: with the prefix in it; its retries and time limits are not used. pause: seconds
        to wait before something is tried again."""
        self._client = ObjectClient(bucket)
        self._address = address
        self._retries = Retries(pause)
        self._listed_at = -_BELIEVED_S

    @property
    def address(self) -> str:
        return self._address

    @property
    def lanes(self) -> int:
        return LANES

    def put(self, key: str, pieces: list[Piece]) -> None:
        # A pack comes in one piece, which is not copied.
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        in_doubt = False

        def attempt() -> None:
            nonlocal in_doubt
            try:
                self._put_once(key, data, again=in_doubt)
            except Temporary as fault:
                in_doubt = in_doubt or fault.arrived
                raise
            except Taken as taken:
                self._who_has(key, data if in_doubt else None, taken)

        self._retries.run(attempt)

    def _put_once(self, key: str, data: Piece, *, again: bool) -> None:
        at, bucket = self._client.writing(len(data), again=again)
        # One request, from the bytes where they are; a list of pieces would be copied once more.
        self._ask(
            "write", key, lambda: at.put(bucket, key, data, mode="create", use_multipart=False)
        )

    def _who_has(self, key: str, ours: Piece | None, taken: Taken) -> None:
        """Returns where it is an earlier try of ours. Raises ObjectExists; Temporary where the key
        is free after all.

        ours: where an earlier try may have arrived and only its answer was lost.
        """
        try:
            if ours is not None:
                if self.size(key) == len(ours) and self.get(key) == ours:
                    return
            elif not taken.certain:
                self.size(key)
        except ObjectMissing:
            raise temporary("write", key, self._address, "somebody changed it") from None
        raise ObjectExists(f"{key} exists") from None

    def get(self, key: str) -> bytes:
        return self._get(key, None).data

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if length <= 0 or offset >= _OFFSETS:
            return b""
        with suppress(OutOfRange):
            return self._get(key, (offset, min(offset + length, _OFFSETS))).data
        return b""

    def get_tail(self, key: str, length: int) -> Tail:
        if length <= 0:
            return Tail(self.size(key), b"")
        try:
            return self._get(key, {"suffix": length})
        except (OutOfRange, NoSuffixes):
            # Some say that more than there is cannot be had, which others say of an empty object.
            size = self.size(key)
            return Tail(size, self.get_range(key, max(0, size - length), length))

    def size(self, key: str) -> int:
        def attempt() -> int:
            at, bucket = self._client.reading()
            return int(self._ask("read", key, lambda: at.head(bucket, key))["size"])

        return self._retries.run(attempt)

    def _get(self, key: str, wanted: Wanted) -> Tail:
        """What is wanted of the object, and how many bytes it has in all."""

        def attempt() -> Tail:
            at, bucket = self._client.reading()
            options = None if wanted is None else {"range": wanted}
            return self._ask(
                "read", key, lambda: self._take(key, wanted, at.get(bucket, key, options=options))
            )

        try:
            return self._retries.run(attempt)
        except NoRanges:
            whole = self._get(key, None)
        start, end = _span(wanted, whole.size)
        return Tail(whole.size, whole.data[start:end])

    def _take(self, key: str, wanted: Wanted, found: Any) -> Tail:
        """found: the library's answer, whose body is still on its way."""
        kind, size = found.attributes.get("Content-Type", ""), int(found.meta["size"])
        if kind.startswith("text/html") or found.meta["e_tag"] is None:
            raise no_object_store("read", key, self._address)
        if wanted is None and size > OBJECT_MAX:
            raise ObjectDamaged(f"{key} in {self._address} has {size} bytes, too many for one")
        start, end = _span(wanted, size)
        # Before anything is read: the library would make room for what the answer promises.
        if found.range != (start, end):
            raise temporary("read", key, self._address, "it answered with another part")
        frames, got = list[Any](), 0
        for frame in found.stream(min_chunk_size=max(1, min(end - start, _FRAME))):
            frames.append(frame)
            got += len(frame)
            if got > end - start:
                break
        if got != end - start:
            raise temporary("read", key, self._address, "the answer was cut short")
        # One copy: this is what reading far packs spends the interpreter's lock on.
        return Tail(size, b"".join(frames))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """In no particular order; a long one is asked for in several parts at once."""
        for page in self._pages(prefix):
            # Some consoles make an entry for a folder itself, here without its slash.
            yield from (found for found in page if found.key.startswith(prefix))

    def _pages(self, prefix: str) -> Iterator[Page]:
        if self._client.kind not in _IN_ORDER:
            yield self._listed_at_once(prefix)
            return
        first = self._page(prefix, None)
        if len(first) == PAGE and not is_ordered(first):
            yield self._listed_at_once(prefix)
            return
        yield first
        if len(first) == PAGE:
            folder = prefix or f"{first[-1].key.partition('/')[0]}/"
            parts = plan_parts(folder, first, LANES)
            yield from list_parts(lambda after: self._page_behind(prefix, after), parts, LANES)

    def _page_behind(self, prefix: str, after: str) -> Page:
        # An answer that is no listing reads as an empty one, and here it would be the end of it.
        page = self._page(prefix, after) or self._page(prefix, after)
        if not is_ordered(page) or (page and page[0].key <= after):
            raise StoreUnfit(f"{self._address} does not list objects in the order of their keys")
        return page

    def _page(self, prefix: str, after: str | None) -> Page:
        def attempt() -> Page:
            at, bucket = self._client.reading()
            stream = at.list(bucket, prefix, offset=after, chunk_size=PAGE)
            rows: list[dict[str, Any]] = self._ask("list", prefix, lambda: next(stream, []))
            if not rows and after is None:
                self._require_object_store(prefix)
            if rows:
                self._listed_at = time.monotonic()
            return [StoredObject(row["path"], row["size"]) for row in rows]

        return self._retries.run(attempt)

    def _listed_at_once(self, prefix: str) -> Page:
        def attempt() -> Page:
            at, bucket = self._client.reading()
            rows = self._ask("list", prefix, lambda: at.list(bucket, prefix).collect())
            return [StoredObject(row["path"], row["size"]) for row in rows]

        return self._retries.run(attempt)

    def _require_object_store(self, prefix: str) -> None:
        """To the library any answer that lists nothing is an empty listing, a web page too. What
        has listed something a moment ago can list: most empty folders cost one request. Otherwise
        it has to list what every repository has."""
        if time.monotonic() - self._listed_at < _BELIEVED_S:
            return
        at, bucket = self._client.reading()
        behind = at.list(bucket, None, offset=_BEFORE_CONFIG, chunk_size=PAGE)
        rows: list[dict[str, Any]] = self._ask("list", "", lambda: next(behind, []))
        if not rows or rows[0]["path"] != CONFIG_KEY:
            with suppress(ObjectMissing):
                found = self._ask("read", CONFIG_KEY, lambda: at.head(bucket, CONFIG_KEY))
                if found["e_tag"] is None:
                    raise no_object_store("list", prefix, self._address)
                raise temporary("list", prefix, self._address, "it does not list what is there")
        self._listed_at = time.monotonic()

    def delete(self, key: str) -> None:
        def attempt() -> None:
            at, bucket = self._client.writing(0)
            self._ask("delete", key, lambda: at.delete(bucket, key))

        with suppress(ObjectMissing):
            self._retries.run(attempt)

    def _ask(self, doing: Doing, key: str, request: Callable[[], T]) -> T:
        """One request. Raises what the store's errors mean."""
        try:
            return interruptible(request)
        except Exception as error:  # the library's errors have no base but this
            fault = sorted_fault(error, doing, key, self._address)
            if fault is None or fault is error:
                raise
            if not isinstance(fault, Temporary):
                self._retries.answered()
            # Not from it: its text is a stranger's.
            raise fault from None


def _span(wanted: Wanted, size: int) -> tuple[int, int]:
    """Where what is wanted of an object of `size` bytes begins and ends."""
    if wanted is None:
        return 0, size
    if isinstance(wanted, tuple):
        return wanted[0], min(wanted[1], size)
    return max(0, size - wanted["suffix"]), size
