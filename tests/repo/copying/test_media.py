"""Media in the making: how they are put together, and what is left of those that are not done."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_repo.copying import media as media_module
from backpoint_repo.copying.contract import Watch
from backpoint_repo.copying.media import Media
from backpoint_repo.copying.verbatim import copy_point_verbatim
from backpoint_repo.errors import NotARepository, UsageError
from backpoint_repo.format import Kind
from backpoint_repo.repository import open_repository
from backpoint_repo.store.local import LocalStore
from repo.copying.replica_scene import Scene
from small_repository import (
    PASSPHRASE,
    as_agent,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
)
from synthetic_disk import random_disk

MIB = 1 << 20
DISK = random_disk(8 * MIB, 1)


def filled(scene: Scene, media: Media, points: int) -> None:
    for number in range(points):
        point = back_up(scene.source, f"vm{number}", DISK if number == 0 else random_disk(MIB, 9))
        copy_point_verbatim(as_agent(scene.source), media.repository, point, None, Watch())


def test_many_points_have_one_segment_and_one_catalogue(tmp_path: Path) -> None:
    scene = Scene()
    with Media(as_agent(scene.source), tmp_path / "media", fresh=True) as media:
        filled(scene, media, 12)
        media.finish()
    store = LocalStore(tmp_path / "media")
    assert [len(keys_of(store, kind)) for kind in (Kind.INDEX, Kind.CATALOG, Kind.LEASE)] == [
        1,
        1,
        0,
    ]
    repository = open_repository(store, PASSPHRASE, scene.clock)
    points = {summary.vm: summary for summary in repository.catalog.refresh()}
    assert len(points) == 12
    disk = repository.point(points["vm0"].point_id).disks[0]
    assert read_disk(repository, disk) == DISK.content(0, DISK.size)
    assert_clean(repository)


def test_an_index_that_is_too_large_for_one_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never in memory as a whole."""
    monkeypatch.setattr(media_module, "SEGMENT_ENTRIES_MAX", 60)
    scene = Scene()
    with Media(as_agent(scene.source), tmp_path, fresh=True) as media:
        filled(scene, media, 6)
        media.finish()
    store = LocalStore(tmp_path)
    assert 1 < len(keys_of(store, Kind.INDEX)) < 6
    assert_clean(open_repository(store, PASSPHRASE, scene.clock))


def test_what_was_cut_short_is_no_repository(tmp_path: Path) -> None:
    """And is not gone on with."""
    scene = Scene()
    with Media(as_agent(scene.source), tmp_path, fresh=True) as media:
        filled(scene, media, 1)
    store = LocalStore(tmp_path)
    assert keys_of(store, Kind.POINT)
    with pytest.raises(NotARepository):
        open_repository(store, PASSPHRASE, scene.clock)
    with pytest.raises(UsageError, match="is not new"):
        Media(as_agent(scene.source), tmp_path, fresh=True)


def test_nothing_is_left_where_nothing_was_copied(tmp_path: Path) -> None:
    scene = Scene()
    with Media(as_agent(scene.source), tmp_path / "media", fresh=True):
        pass
    assert not (tmp_path / "media").exists()


def test_one_that_was_just_made_is_taken_and_a_used_one_is_not(tmp_path: Path) -> None:
    scene = Scene()
    made = new_repository(LocalStore(tmp_path), scene.clock)
    with Media(made, tmp_path, fresh=False) as media:
        back_up(media.repository, "vm", DISK)
        media.finish()
    store = LocalStore(tmp_path)
    assert not (tmp_path / "tmp").exists()
    assert_clean(open_repository(store, PASSPHRASE, scene.clock))
    with pytest.raises(UsageError, match="is not new"):
        Media(made, tmp_path, fresh=False)
