"""What a repository asks of the place its objects live in.

A store maps keys (relative paths of [a-z0-9/-] characters) to immutable byte objects. It knows
nothing of what they mean. Every method may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

Piece = bytes | bytearray | memoryview


class StoredObject(NamedTuple):
    """One line of a listing."""

    key: str
    size: int


class Tail(NamedTuple):
    """The last bytes of an object, and how many it has in all."""

    size: int
    data: bytes


class Store(Protocol):
    """Put-if-absent, get, ranged get, list, delete.

    Errors of every method: StoreUnavailable (and its kinds: StoreFull, StoreReadOnly, StoreDenied,
    StoreMisconfigured, StoreUnfit) where the place cannot be read or written now. They say nothing
    about the data. What passes by itself was tried again, for minutes, before one is raised.

    A store that was used may be used in a process that is forked from its own, and in both.
    """

    @property
    def address(self) -> str:
        """What the user calls this place; for messages."""

    @property
    def lanes(self) -> int:
        """Requests at once that pay off: 1 where one costs next to nothing, dozens where each waits
        for a network."""

    def put(self, key: str, pieces: list[Piece]) -> None:
        """Store the concatenated pieces, unless the key is taken.

        When it returns, the object is durable and every later `get` and `list` sees it. Until then
        no other caller sees any of it. Of several racing puts exactly one wins.
        Raises ObjectExists where the key is taken. After StoreUnavailable the object may be there
        all the same, or come into being a little later: the answer may be what was lost. The pieces
        must not change before it returns.
        """

    def get(self, key: str) -> bytes:
        """The whole object. Raises ObjectMissing; ObjectDamaged where it is larger than any is."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer where the object ends. Raises ObjectMissing."""

    def get_tail(self, key: str, length: int) -> Tail:
        """The last `length` bytes, or all where it has fewer. Raises ObjectMissing."""

    def size(self, key: str) -> int:
        """Bytes of the object. Raises ObjectMissing."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key starts with `prefix` (a folder with its slash, or ""), in no
        particular order. What is put or deleted meanwhile may be among them or not."""

    def delete(self, key: str) -> None:
        """Remove the object; an absent one is no error."""
