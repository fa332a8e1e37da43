"""SIGKILL at every changing store call of a backup and of an init: the next run is fine."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from backpoint_repo.errors import NotARepository
from backpoint_repo.format import Kind
from backpoint_repo.repository import Repository, create_repository, open_repository
from backpoint_repo.store.local import LocalStore
from faults.failing_store import AFTER, BEFORE, UNLINKED, FailingStore
from faults.other_process import back_up_dying, disk_of, exit_code, init_dying, start
from small_repository import (
    CHEAP,
    PASSPHRASE,
    SMALL_CHUNKS,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
)

FIRST, SECOND = 1, 2
CHANGES = 7
"""Changing store calls of a backup: lease, data pack, node pack, index, point; its catalogue has
not enough points to be written; the lease goes. One more than there are, as the way out."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one point."""
    root = tmp_path_factory.mktemp("template") / "repository"
    back_up(new_repository(LocalStore(root)), "web", disk_of(FIRST))
    return root


@pytest.fixture
def root(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "repository"))


def opened(root: Path) -> Repository:
    return open_repository(LocalStore(root), PASSPHRASE)


def bytes_in_packs(root: Path) -> int:
    return sum(
        found.size for folder in ("packs/", "nodes/") for found in LocalStore(root).list(folder)
    )


def changing_calls(root: Path) -> int:
    """Of one whole backup, counted on a copy."""
    copy = Path(shutil.copytree(root, root.parent / "counted"))
    only = frozenset({"put", "delete"})
    store = FailingStore(LocalStore(copy), 0, lambda: None, only=only)
    back_up(open_repository(store, PASSPHRASE), "web", disk_of(SECOND))
    return len(store.calls)


def test_the_kill_points_below_are_all_there_are(root: Path) -> None:
    assert changing_calls(root) == CHANGES - 1


@pytest.mark.parametrize("moment", [BEFORE, UNLINKED, AFTER])
@pytest.mark.parametrize("at", range(1, CHANGES + 1))
def test_backup_killed(root: Path, at: int, moment: str) -> None:
    calls = CHANGES - 1 if moment != UNLINKED else CHANGES - 2  # a delete links nothing
    killed = exit_code(start(back_up_dying, root, SECOND, at, moment))
    assert killed == (-signal.SIGKILL if at <= calls else 0)
    assert_clean(opened(root))
    points = opened(root).catalog.refresh()
    assert len(points) in (1, 2)
    before = bytes_in_packs(root)
    point = back_up(opened(root), "web", disk_of(SECOND))
    repository = opened(root)
    summaries = repository.catalog.refresh()
    assert len(summaries) == len(points) + 1
    for summary in summaries:
        stored = repository.point(summary.point_id)
        content = disk_of(FIRST if stored.parent is None else SECOND)
        assert read_disk(repository, stored.disks[0]) == content.content(0, content.size)
    assert_clean(repository)
    full = disk_of(SECOND).size // 2
    assert point.traffic.stored + before < (2 * full) * 1.1, "what was stored is found again"
    assert bytes_in_packs(root) < (2 * full) * 1.1
    back_up(opened(root), "web", disk_of(SECOND))
    assert bytes_in_packs(root) < (2 * full) * 1.1


@pytest.mark.parametrize("moment", [BEFORE, UNLINKED, AFTER])
@pytest.mark.parametrize("at", [1, 2])
def test_init_killed(tmp_path: Path, at: int, moment: str) -> None:
    """Either there is no repository and init makes one, or there is a whole one."""
    root = tmp_path / "repository"
    assert exit_code(start(init_dying, root, at, moment)) == -signal.SIGKILL
    store = LocalStore(root)
    if (at, moment) == (2, AFTER):
        repository = opened(root)
    else:
        with pytest.raises(NotARepository):
            opened(root)
        repository = create_repository(store, PASSPHRASE, SMALL_CHUNKS, cost=CHEAP)
    back_up(repository, "web", disk_of(FIRST))
    assert len(opened(root).catalog.refresh()) == 1
    assert len(keys_of(store, Kind.SLOT)) == 1, "the slot of the init that died is gone"
    assert_clean(opened(root))
