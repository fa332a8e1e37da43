"""A repository with a point of two disks, its sessions, one served as by a mount, and commits.

Knows how a session is written and looked at through the public calls; what must hold is the test's
business.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from backpoint_fusefs.live.committing.commit import CommitWish, commit_session
from backpoint_fusefs.live.control.control_server import serve_control
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.check import check_repository
from backpoint_repo.point import Point
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore
from small_repository import NOON, PASSPHRASE, new_repository, read_disk
from synthetic_disk import SyntheticDisk

MIB: Final = 1 << 20
VMX: Final = b'scsi0:0.fileName = "disk0.vmdk"\n'
SIZES: Final = (40 * MIB, 3 * MIB)


@dataclass(frozen=True)
class CommitScene:
    """root: of the repository. live: of the sessions."""

    root: Path
    live: Path

    def repository(self, store: Store | None = None) -> Repository:
        """As a new process opens it."""
        return open_repository(store or LocalStore(self.root), PASSPHRASE)

    def home(self, repository: Repository | None = None) -> SessionHome:
        """Likewise."""
        return SessionHome(self.live, repository or self.repository())

    def start(self, name: str = "trial") -> None:
        """A session of the newest point of `web`."""
        newest = [found for found in self.repository().catalog.refresh() if found.vm == "web"][-1]
        self.home().start(newest, name)

    @contextmanager
    def session(self, name: str = "trial") -> Iterator[Session]:
        """Opened by this process."""
        session = self.home().open(name)
        try:
            yield session
        finally:
            session.close()

    def assert_clean(self) -> None:
        """Every object of the repository is whole."""
        report = check_repository(self.repository(), read_share=1.0)
        assert report.clean, report


def make_scene(folder: Path) -> CommitScene:
    """A VM `web` with one point: 2 disks that hold a little here and there, and a .vmx."""
    scene = CommitScene(folder / "repo", folder / "live")
    repository = new_repository(LocalStore(scene.root))
    with repository.begin_backup("web") as session:
        for number, size in enumerate(SIZES):
            disk = SyntheticDisk(size)
            rng = random.Random(number)
            for _ in range(6):
                length = rng.randrange(1, 200_000)
                disk.write(rng.randrange(size - length), rng.randbytes(length))
            session.store_disk(DiskJob(f"scsi0:{number}", disk), lambda _: None)
        session.store_file("web.vmx", VMX)
        session.publish(time=NOON, label="", capture={"kind": "vsphere", "instance": "i-1"})
    return scene


def disk_node(session: Session, number: int) -> LiveNode:
    """The node of a disk, by its number in the point."""
    for node in session.names.children(ROOT_NODE):
        if node.type is NodeType.DISK and node.disk == number:
            return node
    raise AssertionError(f"no disk {number}")


def write(session: Session, disk: int, offset: int, data: bytes) -> None:
    """As a guest does."""
    session.file(disk_node(session, disk).number).write(offset, data)


def disk_bytes(session: Session, disk: int) -> bytes:
    """All of it."""
    file = session.file(disk_node(session, disk).number)
    return b"".join(bytes(file.read(at, MIB)) for at in range(0, file.size, MIB))


def point_bytes(scene: CommitScene, point: Point, disk: int) -> bytes:
    """All of a stored disk, as a new process reads it."""
    return read_disk(scene.repository(), point.disks[disk])


def commit(scene: CommitScene, repository: Repository | None = None, **wish: str) -> Point:
    """Of the session `trial`, as the command does it, by an own opening of everything."""
    repository = repository or scene.repository()
    home = scene.home(repository)
    return commit_session(
        repository, home, "trial", CommitWish(**wish), lambda _: nullcontext(lambda _: None)
    )


@contextmanager
def serving(session: Session, folder: Path) -> Iterator[list[str]]:
    """Hear requests in a thread, as a mount does; what was done besides, for a look: `released`."""
    done: list[str] = []
    ready = threading.Event()
    scope = trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def release() -> None:
        await trio.to_thread.run_sync(session.close)
        done.append("released")

    async def main() -> None:
        token.append(trio.lowlevel.current_trio_token())
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_control, folder, session, release)
                ready.set()
        done.append("ended")

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        assert ready.wait(20)
        yield done
    finally:
        if "released" not in done:
            token[0].run_sync_soon(scope.cancel)
        thread.join(20)
        assert not thread.is_alive()
