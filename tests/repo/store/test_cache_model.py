"""Whatever happens to a cache on the way, what is read through it is what the store has."""

from __future__ import annotations

import random
import secrets
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from backpoint_repo.errors import ObjectMissing
from backpoint_repo.store.block_cache import DATA, LASTING, BlockCache
from backpoint_repo.store.block_eviction import size_on_disk
from backpoint_repo.store.block_file import BLOCK
from backpoint_repo.store.cached_store import CachedStore
from backpoint_repo.store.contract import Tail
from counting_store import CountingStore

_FOLDERS = ("packs/aa", "nodes/aa", "points", "catalog", "index", "leases")
_SIZES = st.sampled_from([0, 1, 70_000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 9])
_OFFSETS = st.one_of(st.integers(0, 3 * BLOCK), st.sampled_from([0, BLOCK, 2 * BLOCK]))
_LIMIT = 4 * (BLOCK + 4096)


class CacheModel(RuleBasedStateMachine):
    """Whatever happens to the cache, reading gives what the store has.

    Packs that somebody else deleted may still be read; everything else is as the store has it.
    """

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.inner = CountingStore()
        self.content: dict[str, bytes] = {}
        self.gone: dict[str, bytes] = {}
        self.place = self.folder / secrets.token_hex(8)
        self.restart()

    @rule()
    def restart(self) -> None:
        self.settle()
        self.cache = BlockCache(self.place / "cache" / "id" / "blocks", bytes(32), _LIMIT)
        self.cache.make()
        self.store = CachedStore(self.inner, self.cache)

    @rule(folder=st.sampled_from(_FOLDERS), size=_SIZES)
    def put(self, folder: str, size: int) -> None:
        key = f"{folder}/{len(self.content) + len(self.gone):04x}"
        self.content[key] = random.Random(size).randbytes(size)
        self.store.put(key, [self.content[key]])

    @rule(data=st.data(), offset=_OFFSETS, length=_OFFSETS)
    def get_range(self, data: st.DataObject, offset: int, length: int) -> None:
        if (key := self._some_key(data)) is not None:
            expected = self._of(key)[offset : offset + length]
            self._compare(key, lambda: self.store.get_range(key, offset, length) == expected)

    @rule(data=st.data(), length=_OFFSETS)
    def get_tail(self, data: st.DataObject, length: int) -> None:
        if (key := self._some_key(data)) is not None:
            whole = self._of(key)
            expected = Tail(len(whole), whole[max(0, len(whole) - length) :])
            self._compare(key, lambda: self.store.get_tail(key, length) == expected)

    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        if (key := self._some_key(data)) is not None:
            self._compare(key, lambda: self.store.get(key) == self._of(key))
            self._compare(key, lambda: self.store.size(key) == len(self._of(key)))

    @rule(data=st.data(), by_us=st.booleans())
    def delete(self, data: st.DataObject, by_us: bool) -> None:
        key = data.draw(st.sampled_from([*self.content, None]))
        if key is None:
            return
        (self.store if by_us else self.inner).delete(key)
        self.gone[key] = self.content.pop(key)

    @rule(data=st.data(), what=st.sampled_from(["flip", "cut", "remove", "link", "swap"]))
    def spoil(self, data: st.DataObject, what: str) -> None:
        files = self._files()
        if not files:
            return
        path = data.draw(st.sampled_from(files))
        size = path.lstat().st_size
        if what == "flip":
            at = data.draw(st.integers(0, size - 1)) if size else 0
            whole = bytearray(path.read_bytes())
            whole[at : at + 1] = bytes([whole[at] ^ 1]) if whole else b"x"
            path.write_bytes(whole)
        elif what == "cut":
            path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, size))])
        elif what == "swap":
            other = data.draw(st.sampled_from(files))
            mine, others = path.read_bytes(), other.read_bytes()
            path.write_bytes(others)
            other.write_bytes(mine)
        else:
            path.unlink()
            if what == "link":
                path.symlink_to("/dev/zero")

    @invariant()
    def within_its_limit(self) -> None:
        assert sum(size_on_disk(path.stat().st_size) for path in self._files()) <= _LIMIT

    @rule()
    def settle(self) -> None:
        if hasattr(self, "store"):
            self.store.settle()

    def _files(self) -> list[Path]:
        self.store.settle()
        place = self.place / "cache" / "id" / "blocks"
        found = [path for name in (DATA, LASTING) for path in (place / name).iterdir()]
        return sorted(path for path in found if not path.is_symlink())

    def _some_key(self, data: st.DataObject) -> str | None:
        return data.draw(st.sampled_from([*self.content, *self.gone, None]))

    def _of(self, key: str) -> bytes:
        return self.content[key] if key in self.content else self.gone[key]

    def _compare(self, key: str, same: object) -> None:
        assert callable(same)
        try:
            assert same(), key
        except ObjectMissing:
            assert key in self.gone


def test_reading_gives_what_the_store_has_whatever_happens_to_the_cache(tmp_path: Path) -> None:
    CacheModel.folder = tmp_path
    limits = settings(max_examples=40, stateful_step_count=25)
    run_state_machine_as_test(CacheModel, settings=limits)
