"""The files of decoded segments: what is believed of them, and that nothing depends on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.segment_cache import FILE_FROM, CachePlace, SegmentCache, cache_place

KEY, OTHER_KEY = bytes(32), bytes([1]) * 32
NAME, OTHER_NAME = "ab" * 16, "cd" * 16
PAYLOAD = bytes(range(256)) * (FILE_FROM // 256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index"


@pytest.fixture
def cache(folder: Path) -> SegmentCache:
    return SegmentCache(folder, KEY)


def test_a_kept_segment_is_found_by_the_next_process(cache: SegmentCache, folder: Path) -> None:
    assert cache.find(NAME) is None
    kept = cache.keep(NAME, PAYLOAD)
    assert kept is not None
    assert bytes(kept) == PAYLOAD
    found = SegmentCache(folder, KEY).find(NAME)
    assert found is not None
    assert bytes(found) == PAYLOAD
    assert cache.names() == {NAME}


def test_nobody_else_can_read_or_write_it(cache: SegmentCache, folder: Path) -> None:
    before = os.umask(0)
    try:
        cache.keep(NAME, PAYLOAD)
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == [folder / NAME]


@pytest.mark.parametrize("level", [0, 1])
def test_a_folder_that_others_can_write_into_is_not_used(folder: Path, level: int) -> None:
    """Nor one below it: they could put another in its place."""
    folder.mkdir(parents=True, mode=0o700)
    folder.parents[level].chmod(0o777)
    told: list[str] = []
    cache = SegmentCache(folder, KEY, told.append)
    assert cache.keep(NAME, PAYLOAD) is None
    assert not cache.names()
    assert f"chmod go-w {folder.parents[level]}" in told[0]


def test_a_small_segment_makes_no_folder(cache: SegmentCache, folder: Path) -> None:
    assert cache.keep(NAME, PAYLOAD[:-1]) is None
    assert cache.find(NAME) is None
    cache.drop({NAME})
    assert not folder.parent.exists()


def test_what_was_altered_is_not_believed(cache: SegmentCache, folder: Path) -> None:
    cache.keep(NAME, PAYLOAD)
    path = folder / NAME
    good = path.read_bytes()
    altered = [good[:-1], good[:40], b"", good + b"x"]
    for at in (0, 31, 32, len(good) // 2, len(good) - 1):
        altered.append(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    altered.append(blake3(PAYLOAD).digest() + PAYLOAD)
    for content in altered:
        path.write_bytes(content)
        assert SegmentCache(folder, KEY).find(NAME) is None
    path.write_bytes(good)
    assert SegmentCache(folder, OTHER_KEY).find(NAME) is None
    path.rename(folder / OTHER_NAME)
    assert SegmentCache(folder, KEY).find(OTHER_NAME) is None


@given(st.text(max_size=40) | st.just("../" + NAME))
def test_only_names_of_segments_become_paths(name: str) -> None:
    cache = SegmentCache(Path("/nonexistent/cache"), KEY)
    assert cache.find(name) is None
    if name != NAME:
        assert cache.keep(name, PAYLOAD) is None


def test_files_of_gone_segments_go_and_what_a_crash_left(cache: SegmentCache, folder: Path) -> None:
    kept = cache.keep(NAME, PAYLOAD)
    cache.keep(OTHER_NAME, PAYLOAD)
    old, fresh, strange = (folder / name for name in (".a.unfinished", ".b.unfinished", "notes"))
    for path in (old, fresh, strange):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    cache.drop({NAME})
    assert set(folder.iterdir()) == {folder / OTHER_NAME, fresh, strange}
    assert kept is not None
    assert bytes(kept) == PAYLOAD, "who has it mapped keeps it"


def test_a_place_that_cannot_be_used_is_told_once_and_no_failure(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_bytes(b"")
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for folder in (blocker / "index", open_to_all):
        told: list[str] = []
        cache = SegmentCache(folder, KEY, told.append)
        for _ in range(2):
            assert cache.keep(NAME, PAYLOAD) is None
            assert cache.find(NAME) is None
            cache.drop({NAME})
        assert len(told) == 1
        assert str(tmp_path) in told[0]


def test_a_link_is_not_followed(cache: SegmentCache, folder: Path, tmp_path: Path) -> None:
    cache.keep(NAME, PAYLOAD)
    (folder / NAME).rename(tmp_path / "elsewhere")
    (folder / NAME).symlink_to(tmp_path / "elsewhere")
    assert SegmentCache(folder, KEY).find(NAME) is None


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def root(**environment: str) -> Path:
        place = cache_place(environment)
        assert place is not None
        return place.root

    monkeypatch.setenv("HOME", str(tmp_path))
    assert root(BACKPOINT_CACHE="/a", XDG_CACHE_HOME="/b") == Path("/a")
    assert root(XDG_CACHE_HOME="/b") == Path("/b/backpoint")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert root() == Path("/var/cache/backpoint")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert root() == tmp_path / ".cache" / "backpoint"


def test_each_repository_has_its_own(tmp_path: Path) -> None:
    place = CachePlace(tmp_path)
    place.of(bytes(16), "/srv/a", KEY).keep(NAME, PAYLOAD)
    assert place.of(bytes([1]) * 16, "/srv/a", KEY).find(NAME) is None
    assert place.of(bytes(16), "/srv/a", KEY).find(NAME) is not None


def test_each_replica_has_its_own(tmp_path: Path) -> None:
    """They have other segments, and each drops what its store does not list."""
    place = CachePlace(tmp_path)
    place.of(bytes(16), "/srv/a", KEY).keep(NAME, PAYLOAD)
    replica = place.of(bytes(16), "s3://bucket/a", KEY)
    assert replica.names() == set()
    replica.drop([NAME])
    assert place.of(bytes(16), "/srv/a", KEY).find(NAME) is not None
