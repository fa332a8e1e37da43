"""SIGKILL at changing store calls of a copy: what is there is whole, and the next run goes on."""

from __future__ import annotations

import signal
from pathlib import Path

from backpoint_repo.copying.plan import Stock
from backpoint_repo.format import Kind
from backpoint_repo.repository import open_repository
from backpoint_repo.store.local import LocalStore
from faults.failing_store import AFTER
from faults.other_process import exit_code, start
from repo.collecting.collect_scene import filled_disk
from repo.copying.dying_copy import copy_dying
from repo.copying.resealed_scene import THERE, assert_all_clean, owned_by_another
from small_repository import (
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
)

SIZE = 1 << 17


def test_killed_again_and_again_it_gets_there(tmp_path: Path) -> None:
    """Each run dies one call later than the one before; none leaves a half point, and what was
    stored is stored once."""
    here, there = tmp_path / "here", tmp_path / "there"
    source = new_repository(LocalStore(here))
    disks = [filled_disk(seed, SIZE) for seed in (1, 2)]
    points = [back_up(source, "web", disk) for disk in disks]
    clock = StandingClock()
    owned_by_another(LocalStore(there), clock)
    seen = 0
    for at in range(1, 40):
        code = exit_code(start(copy_dying, here, there, at, AFTER))
        assert_all_clean(LocalStore(there), THERE, clock)
        now = len(keys_of(LocalStore(there), Kind.POINT))
        assert now >= seen
        seen = now
        if code == 0:
            break
        assert code == -signal.SIGKILL
    target = open_repository(LocalStore(there), THERE)
    copies = Stock(target.config.repository_id, target.catalog.refresh()).by_identity()
    for point, disk in zip(points, disks, strict=True):
        copy = target.point(copies[source.config.repository_id + point.point_id])
        assert read_disk(target, copy.disks[0]) == disk.content(0, SIZE)
    assert len(copies) == 2
    packs = sum(one.size for one in LocalStore(there).list("packs/"))
    assert 2 * SIZE < packs < 2 * SIZE + SIZE // 2
    assert_clean(source)
