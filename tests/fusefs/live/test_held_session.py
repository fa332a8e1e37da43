"""A session that a mount has: when the times of its disks move."""

from __future__ import annotations

from pathlib import Path

import trio

from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.live.mounted.held_session import HeldSession
from backpoint_repo.store.memory import MemoryStore
from session_scene import make_scene, named
from small_repository import new_repository

_DISK = b"disk0-flat.vmdk"


def test_a_disk_that_stays_open_has_a_new_time_once_it_is_left_alone(tmp_path: Path) -> None:
    """Not with each write; but whoever goes by the time finds it moved, also after a release."""
    scene = make_scene(new_repository(MemoryStore()), tmp_path / "live")
    session = scene.started()

    async def main() -> None:
        workers = DecodeWorkers(1)
        held = HeldSession(session.folder, session, workers, trio.CapacityLimiter(1))
        node = named(session, _DISK)
        begun = node.mtime_ns
        for expected in (True, False):
            await held.open(node.number)
            session.file(node.number).write(0, b"x")
            held.written(node)
            held.settle_times(3600.0)
            assert held.node(node.number).mtime_ns == begun
            if expected:
                held.settle_times(0.0)
                begun, before = held.node(node.number).mtime_ns, begun
                assert begun > before
                held.settle_times(0.0)
                assert held.node(node.number).mtime_ns == begun
        await held.end()
        workers.close()
        again = scene.home.open("web")
        assert named(again, _DISK).mtime_ns > begun
        again.close()

    trio.run(main)
