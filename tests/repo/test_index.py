"""The whole index: many segments, what a writer may rely on, and what a crash left out."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_repo.errors import StoreFull
from backpoint_repo.exclusions import Exclusions
from backpoint_repo.format import HOLE, Kind, object_key
from backpoint_repo.index import Index, ids_of, stored_packs
from backpoint_repo.index_segment import Location, PackRef
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.segment_cache import CachePlace
from backpoint_repo.segment_merge import merge_segments
from backpoint_repo.store.contract import Piece
from backpoint_repo.store.memory import MemoryStore
from small_repository import (
    PASSPHRASE,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
    reopened,
)
from synthetic_disk import random_disk

MIB = 1 << 20
PACKS = [PackRef(Kind.DATA_PACK, bytes([n]) * 16) for n in range(8)]


def content_id(number: int) -> bytes:
    """Pairs share their first eight bytes."""
    return (number // 2).to_bytes(8, "big") + bytes([1 + number % 2]) * 24


def test_many_segments_against_a_model(repository: Repository) -> None:
    rng = random.Random(1)
    writer, reader = Index(repository.sealed), Index(repository.sealed)
    model: dict[bytes, set[Location]] = {}
    for round_ in range(60):
        entries = []
        for _ in range(rng.choice([1, 10, 300])):
            pack = rng.choice(PACKS)
            place = Location(pack, rng.randrange(1 << 25), rng.randrange(1 << 20))
            entries.append((content_id(rng.randrange(4000)), place))
        writer.add(entries)
        for one, place in entries:
            model.setdefault(one, set()).add(place)
        if round_ % 7 == 0:
            reader.refresh()
    reader.refresh()
    ids = [content_id(number) for number in range(4100)]
    for index in (writer, reader):
        assert index.known(ids_of(ids)).tolist() == [one in model for one in ids]
        for one, found in zip(ids, index.locate(ids_of(ids)), strict=True):
            assert (found in model[one]) if one in model else found is None
        for one in ids[:500]:
            assert set(index.copies(one)) == model.get(one, set())
        assert len(index.tables()) < 12, "small tables are merged"
    assert reader.locate(ids_of([HOLE])) == [None]
    assert not reader.known(ids_of([HOLE]))[0]


def test_trash_and_damage_marks_hide_copies_from_writers_only(repository: Repository) -> None:
    index = Index(repository.sealed)
    both, only, marked = content_id(0), content_id(1), content_id(2)
    first, second = Location(PACKS[0], 8, 10), Location(PACKS[1], 8, 10)
    index.add([(both, first), (both, second), (only, first), (marked, second)])
    ids = ids_of([both, only, marked])

    def known(exclusions: Exclusions) -> list[bool]:
        index.exclude(exclusions)
        answer: list[bool] = index.known(ids).tolist()
        return answer

    trashed, damaged = frozenset({PACKS[0]}), frozenset({(marked, PACKS[1])})
    assert known(Exclusions()) == [True, True, True]
    assert known(Exclusions(1, trashed)) == [True, False, True]
    assert known(Exclusions(1, trashed, damaged)) == [True, False, False]
    assert index.copies(both) == [second, first], "trash is asked last"
    assert index.locate(ids)[1] == first
    assert known(Exclusions(1, frozenset(PACKS))) == [False, False, False]
    both_bad = frozenset({(both, PACKS[0]), (both, PACKS[1])})
    assert known(Exclusions(0, frozenset(), both_bad)) == [False, True, True]
    assert known(Exclusions(1, trashed, frozenset({(both, PACKS[1])})))[0] is False


def test_exclusions_outlive_merging(repository: Repository) -> None:
    index = Index(repository.sealed)
    index.exclude(Exclusions(1, frozenset({PACKS[0]})))
    for number in range(300):
        index.add([(content_id(number), Location(PACKS[number % 2], 8, 10))])
    ids = ids_of([content_id(number) for number in range(300)])
    assert index.known(ids).tolist() == [number % 2 == 1 for number in range(300)]


def pack_names(repository: Repository) -> list[PackRef]:
    return sorted(stored_packs(repository.sealed))


def test_a_writer_relies_only_on_packs_that_it_has_seen(repository: Repository) -> None:
    """Entries of packs that were swept long ago come back when stale segments are merged late."""
    back_up(repository, "vm", random_disk(MIB, 1))
    writer, stale = Index(repository.sealed), Index(repository.sealed)
    writer.refresh()
    writer.adopt_unlisted_packs()
    (seen, *_) = [pack for pack in pack_names(repository) if pack.kind is Kind.DATA_PACK]
    ids = ids_of([content_id(0), content_id(1), content_id(2)])
    stale.add([(content_id(0), Location(PACKS[0], 8, 10)), (content_id(1), Location(seen, 8, 10))])
    writer.refresh()
    assert writer.known(ids).tolist() == [False, True, False]
    assert writer.locate(ids)[0] is not None, "a reader may try"
    writer.add([(content_id(2), Location(PACKS[1], 8, 10))])
    stale.add([(content_id(0), Location(PACKS[1], 8, 10))])
    writer.refresh()
    assert writer.known(ids).tolist() == [True, True, True], "what it wrote itself is there"
    other = writer.fork()
    assert other.known(ids).tolist() == [True, True, True]
    other.adopt_unlisted_packs()
    assert other.known(ids).tolist() == [False, True, False], "another session lists for itself"


def test_a_pack_that_lost_its_end_is_not_relied_on(repository: Repository) -> None:
    """Also where the segment that tells its true length is loaded later."""
    back_up(repository, "vm", random_disk(MIB, 1))
    pack = pack_names(repository)[0]
    size = repository.sealed.store.size(object_key(pack.kind, pack.name.hex()))
    writer, other = Index(repository.sealed), Index(repository.sealed)
    other.add([(content_id(0), Location(pack, 8, 10))])
    writer.refresh()
    writer.adopt_unlisted_packs()
    ids = ids_of([content_id(0), content_id(1)])
    assert writer.known(ids).tolist() == [True, False]
    assert not writer.has_losses()
    other.add([(content_id(1), Location(pack, size - 9, 10))])
    writer.refresh()
    assert writer.known(ids).tolist() == [False, False]
    assert writer.has_losses()
    good = Location(PACKS[0], 8, 10)
    lost = [row.tobytes() for table in writer.tables() for row in table.ids()]
    writer.add([(one, good) for one in lost])
    assert not writer.has_losses()


def test_what_only_trash_holds_is_a_loss(repository: Repository) -> None:
    index = Index(repository.sealed)
    index.add([(content_id(0), Location(PACKS[0], 8, 10))])
    assert not index.has_losses()
    index.exclude(Exclusions(1, frozenset({PACKS[0]})))
    assert index.has_losses()
    index.add([(content_id(0), Location(PACKS[1], 8, 10))])
    assert not index.has_losses()
    index.exclude(Exclusions(1, frozenset(), frozenset({(content_id(0), PACKS[1])})))
    assert not index.has_losses()
    index.exclude(Exclusions(1, frozenset({PACKS[0]}), frozenset({(content_id(0), PACKS[1])})))
    assert index.has_losses()


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CachePlace:
    """Where every segment has a file, however small."""
    monkeypatch.setattr("backpoint_repo.segment_cache.FILE_FROM", 0)
    return CachePlace(tmp_path / "cache")


def cached(repository: Repository, caches: CachePlace) -> Repository:
    return open_repository(repository.sealed.store, PASSPHRASE, repository.clock, caches)


def cached_files(caches: CachePlace) -> list[Path]:
    """Of the one repository there is."""
    return list(caches.root.glob("*/index-*/*"))


def cached_names(caches: CachePlace) -> set[str]:
    return {path.name for path in cached_files(caches)}


def test_mapped_segments_answer_the_same(repository: Repository, caches: CachePlace) -> None:
    disk = random_disk(MIB, 1)
    first, second = cached(repository, caches), cached(repository, caches)
    point = back_up(first, "vm", disk)
    again = back_up(second, "vm", disk)
    assert again.traffic.new == 0
    third = cached(repository, caches)
    assert read_disk(third, point.disks[0]) == disk.content(0, MIB)
    assert third.index.tables()
    assert all(table.mapping is not None for table in third.index.tables())
    names = {key.removeprefix("index/") for key in keys_of(repository.sealed.store, Kind.INDEX)}
    assert cached_names(caches) == names
    assert_clean(repository)


def test_a_spoiled_cache_file_is_made_again(repository: Repository, caches: CachePlace) -> None:
    disk = random_disk(MIB, 1)
    back_up(cached(repository, caches), "vm", disk)
    (path,) = cached_files(caches)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    assert back_up(cached(repository, caches), "vm", disk).traffic.new == 0
    assert path.read_bytes() == good


def test_files_of_merged_segments_go(repository: Repository, caches: CachePlace) -> None:
    opened = cached(repository, caches)
    for number in range(10):
        opened.index.add([(content_id(number), Location(PACKS[0], 8, 10))])
    assert len(cached_names(caches)) == 10
    merge_segments(repository.sealed, Index(repository.sealed))
    ids = ids_of([content_id(number) for number in range(10)])
    assert opened.index.known(ids).all()
    opened.index.refresh()
    assert opened.index.known(ids).all()
    assert len(cached_names(caches)) == 1


def test_an_empty_index(repository: Repository) -> None:
    index = Index(repository.sealed)
    index.refresh()
    index.add([])
    assert keys_of(repository.sealed.store, Kind.INDEX) == []
    assert index.known(ids_of([content_id(1)])).tolist() == [False]
    assert index.known(ids_of([])).tolist() == []
    assert index.locate(ids_of([])) == []


def test_orphan_packs_are_adopted(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    back_up(repository, "vm", disk)
    store = repository.sealed.store
    repository.index.refresh()
    expected = {row.tobytes() for table in repository.index.tables() for row in table.ids()}
    for key in keys_of(store, Kind.INDEX):
        store.delete(key)
    index = Index(repository.sealed)
    assert index.adopt_unlisted_packs() == 2
    assert index.adopt_unlisted_packs() == 0
    for seen in (index, reopened(repository).index):
        seen.refresh()
        assert {row.tobytes() for table in seen.tables() for row in table.ids()} == expected
    assert_clean(repository)


class SecondSegmentFails(MemoryStore):
    """Has no room for the second index segment, once."""

    def __init__(self) -> None:
        super().__init__()
        self.armed = False
        self.segments = 0

    def put(self, key: str, pieces: list[Piece]) -> None:
        if self.armed and key.startswith("index/"):
            self.segments += 1
            if self.segments == 2:
                raise StoreFull("no room")
        super().put(key, pieces)


def test_adoption_cut_short_is_completed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpoint_repo.index.SEGMENT_ENTRIES_MAX", 1)
    store = SecondSegmentFails()
    repository = new_repository(store)
    back_up(repository, "vm", random_disk(MIB, 1))
    repository.index.refresh()
    packs = repository.index.packs()
    for key in keys_of(store, Kind.INDEX):
        store.delete(key)
    store.armed = True
    index = Index(repository.sealed)
    with pytest.raises(StoreFull):
        index.adopt_unlisted_packs()
    index.adopt_unlisted_packs()
    seen = Index(repository.sealed)
    seen.refresh()
    assert seen.packs() == packs
    assert_clean(repository)


def test_a_repository_without_index_is_read_and_continued(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    point = back_up(repository, "vm", disk)
    store = repository.sealed.store
    for key in keys_of(store, Kind.INDEX):
        store.delete(key)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, MIB)
    assert back_up(reopened(repository), "vm", disk).traffic.new == 0


def test_a_damaged_segment_is_named_and_made_again(repository: Repository) -> None:
    disk = random_disk(MIB, 1)
    point = back_up(repository, "vm", disk)
    store = repository.sealed.store
    (key,) = keys_of(store, Kind.INDEX)
    data = bytearray(store.get(key))
    for place in (0, 7, len(data) // 2):
        data[place] ^= 1
        store.delete(key)
        store.put(key, [data])
        fresh = reopened(repository)
        assert read_disk(fresh, point.disks[0]) == disk.content(0, MIB)
        assert key in fresh.index.broken_segments[0]
        data[place] ^= 1
    again = back_up(reopened(repository), "vm", disk)
    assert again.traffic.new == 0


def test_a_damaged_orphan_is_left_alone(repository: Repository) -> None:
    repository.sealed.store.put(object_key(Kind.DATA_PACK, "ab" * 16), [b"half a pack"])
    repository.sealed.store.put("packs/zz/not-a-pack", [b"x"])
    disk = random_disk(MIB, 1)
    point = back_up(repository, "vm", disk)
    assert read_disk(reopened(repository), point.disks[0]) == disk.content(0, MIB)


def test_readers_and_a_writer_at_once(repository: Repository) -> None:
    index = Index(repository.sealed)
    ids = ids_of([content_id(number) for number in range(400)])

    def read(_: int) -> bool:
        before = index.known(ids)
        after = index.known(ids)
        places = index.locate(ids)
        gone = before & ~after
        return not gone.any() and all(places[at] is not None for at in before.nonzero()[0])

    with ThreadPoolExecutor(4) as threads:
        reading = [threads.submit(read, number) for number in range(60)]
        for number in range(400):
            index.add([(content_id(number), Location(PACKS[0], number, 10))])
        assert all(future.result() for future in reading)
    assert bool(index.known(ids).all())
