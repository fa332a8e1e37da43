"""A small repository with a point of two disks and two files, and live sessions of it.

Knows what is in the point and how a session's content is read whole; what is done to a session is
the test's business.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.backup_session import DiskJob
from backpoint_repo.catalog import PointSummary
from backpoint_repo.point import Point
from backpoint_repo.point_hold import read_holds
from backpoint_repo.repository import Repository
from small_repository import reopened
from synthetic_disk import SyntheticDisk

VM = "web01"
VMX = b'displayName = "web01"\n' * 100
SIZE = 256 << 10


def disk_bytes(seed: int, size: int = SIZE) -> bytes:
    """Half of it data, the rest zeros."""
    return random.Random(seed).randbytes(size // 2) + bytes(size - size // 2)


def make_point(
    repository: Repository, disks: list[bytes], vm: str = VM, files: dict[str, bytes] | None = None
) -> PointSummary:
    """A point with these disks and files (a `.vmx` and an empty log where none are given)."""
    if files is None:
        files = {f"{vm}.vmx": VMX, "vmware.log": b""}
    with repository.begin_backup(vm) as backup:
        for number, content in enumerate(disks):
            source = SyntheticDisk(len(content))
            source.write(0, content)
            backup.store_disk(DiskJob(f"disk{number}", source, None), lambda _: None)
        for name, data in files.items():
            backup.store_file(name, data)
        return summary_of(repository, backup.publish(time=None, label=""))


def summary_of(repository: Repository, point: Point) -> PointSummary:
    """As a listing has it."""
    return next(found for found in repository.catalog.refresh() if found.point_id == point.point_id)


def new_file(session: Session, name: bytes, content: bytes = b"") -> LiveNode:
    """A file made in the session's top folder, and written."""
    made = session.names.create(
        LiveNode(0, NodeType.FILE, ROOT_NODE, name, 0o600, 0, 0, 1000, 1000)
    )
    if content:
        session.file(made.number).write(0, content)
    return made


def content_of(session: Session) -> dict[bytes, bytes]:
    """Of all files and disks in the top folder, by name."""
    return {
        node.name: read_whole(session, node)
        for node in session.names.children(ROOT_NODE)
        if node.type in (NodeType.FILE, NodeType.DISK)
    }


def read_whole(session: Session, node: LiveNode) -> bytes:
    """All bytes of a node."""
    file = session.file(node.number)
    return bytes(file.read(0, file.size))


def named(session: Session, name: bytes) -> LiveNode:
    """The node in the top folder."""
    found = session.names.child(ROOT_NODE, name)
    assert found is not None, name
    return found


def held_points(repository: Repository) -> list[str]:
    """Ids of points that are held, as another process sees it, one for each hold."""
    return sorted(hold.point_id.hex() for hold in read_holds(reopened(repository).sealed))


@dataclass
class LiveScene:
    """A repository, its point, and a folder of sessions."""

    repository: Repository
    home: SessionHome
    point: PointSummary
    disks: list[bytes] = field(default_factory=list)

    def started(self, name: str = "web") -> Session:
        """A session of the point, begun and opened."""
        self.home.start(self.point, name)
        return self.home.open(name)


def make_scene(repository: Repository, folder: Path) -> LiveScene:
    """Two disks of 256 KiB."""
    disks = [disk_bytes(1), disk_bytes(2)]
    point = make_point(repository, disks)
    return LiveScene(repository, SessionHome(folder, repository), point, disks)
