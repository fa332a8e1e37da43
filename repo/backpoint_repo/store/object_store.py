"""A repository in a bucket: S3, and what speaks as S3 does; Google's and Microsoft's stores.

One conditional put decides who has a key, so it is never repeated blindly: where its answer was
lost, what lies at the key tells whether it arrived. Knows requests and their answers; which of them
mean what is in `object_faults.py`, and what an address means is in `address.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import obstore
from obstore.store import ObjectStore as Bucket

from backpoint_repo.errors import ObjectExists, ObjectMissing, StoreUnavailable
from backpoint_repo.store.contract import Piece, StoredObject, Tail
from backpoint_repo.store.object_faults import OutOfRange, Temporary, sorted_fault

T = TypeVar("T")
LANES: Final = 16
_TRIES: Final = 6
_FIRST_PAUSE_S: Final = 0.2


class ObjectStore:
    """Thread-safe; the interpreter lock is free while a request is under way."""

    def __init__(
        self,
        bucket: Bucket,
        address: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """bucket: with the prefix in it, and no retries of its own. pause: seconds to wait."""
        self._bucket = bucket
        self._address = address
        self._pause = pause

    @property
    def address(self) -> str:
        return self._address

    @property
    def lanes(self) -> int:
        return LANES

    def put(self, key: str, pieces: list[Piece]) -> None:
        data = b"".join(pieces)
        fault: StoreUnavailable | None = None
        for attempt in range(_TRIES):
            try:
                self._put_once(key, data)
            except Temporary as error:
                fault = error
                self._pause(_pause_s(attempt))
                continue
            except ObjectExists:
                # Ours, where an earlier try arrived and only its answer was lost.
                if fault is not None and self.get(key) == data:
                    return
                raise
            return
        assert fault is not None
        raise fault

    def _put_once(self, key: str, data: bytes) -> None:
        try:
            obstore.put(self._bucket, key, data, mode="create", use_multipart=False)
        except Exception as error:  # the library's errors have no base but this
            raise sorted_fault(error, f"write {key}", self._address) from error

    def get(self, key: str) -> bytes:
        return self._asked(key, lambda: bytes(obstore.get(self._bucket, key).bytes()))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        if length <= 0:
            return b""
        try:
            return self._asked(
                key,
                lambda: bytes(obstore.get_range(self._bucket, key, start=offset, length=length)),
            )
        except OutOfRange:
            return b""

    def get_tail(self, key: str, length: int) -> Tail:
        def ask() -> Tail:
            found = obstore.get(self._bucket, key, options={"range": {"suffix": length}})
            return Tail(found.meta["size"], bytes(found.bytes()))

        try:
            return self._asked(key, ask)
        except OutOfRange:
            return Tail(0, b"")

    def size(self, key: str) -> int:
        return self._asked(key, lambda: obstore.head(self._bucket, key)["size"])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = self._asked(
            prefix, lambda: [row for page in obstore.list(self._bucket, prefix) for row in page]
        )
        for row in found:
            yield StoredObject(row["path"], row["size"])

    def delete(self, key: str) -> None:
        try:
            self._asked(key, lambda: obstore.delete(self._bucket, key))
        except ObjectMissing:
            return

    def _asked(self, key: str, ask: Callable[[], T]) -> T:
        for attempt in range(_TRIES):
            try:
                return ask()
            except Exception as error:  # the library's errors have no base but this
                fault = sorted_fault(error, f"read {key}", self._address)
                if not isinstance(fault, Temporary) or attempt == _TRIES - 1:
                    raise fault from error
                self._pause(_pause_s(attempt))
        raise AssertionError("unreachable")


def _pause_s(attempt: int) -> float:
    """Seconds before the next try: doubling, and not the same for all who were turned away."""
    return _FIRST_PAUSE_S * float(1 << attempt) * random.uniform(0.5, 1.0)
