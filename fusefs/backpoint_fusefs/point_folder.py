"""What is inside a point's folder: its disks, its configuration files and point.json.

Decides their names and what a file's number stands for. Pure: needs the point, reads no disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_fusefs import inodes
from backpoint_fusefs.file_names import distinct_names
from backpoint_fusefs.inodes import Number, point_prefix
from backpoint_fusefs.listing import moment_of
from backpoint_fusefs.node import Entry, Node, NodeKind
from backpoint_fusefs.point_json import point_json
from backpoint_fusefs.point_proofs import ROLES
from backpoint_repo.point import ConfigFile, Disk, Point
from backpoint_repo.vmdk_descriptor import describe_flat_disk

GUEST = b"guest"

Source = bytes | Disk | ConfigFile
"""What a file is read from: these very bytes, a stored disk, a stored file."""


@dataclass(frozen=True, slots=True)
class _File:
    name: bytes
    role: int
    size: int
    allocated: int
    source: Source


class PointFolder:
    """A point as a folder."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self._prefix = point_prefix(point.point_id)
        files = [*_disks(point), _whole(b"point.json", inodes.POINT_JSON, point_json(point))]
        # Names of proofs are taken too: one may come at any time.
        files += _config_files(point, {file.name for file in files}.union((GUEST, *ROLES)))
        self._by_name = {file.name: file for file in files}
        self._by_role = {file.role: file for file in files}

    @property
    def hidden(self) -> int:
        """Files that the folder cannot show because it has no numbers left for them."""
        all_files = 2 * len(self.point.disks) + 1 + len(self.point.files)
        return all_files - len(self._by_role)

    def node(self, role: int) -> Node | None:
        """The file with this role."""
        if role == inodes.GUEST_FOLDER:
            return self._guest()
        file = self._by_role.get(role)
        return None if file is None else self._node(file)

    def find(self, name: bytes) -> Node | None:
        """The file with this name, or `guest`."""
        if name == GUEST:
            return self._guest()
        file = self._by_name.get(name)
        return None if file is None else self._node(file)

    def entries(self) -> list[Entry]:
        """All files, and `guest`."""
        files = [Entry(file.name, self._node(file)) for file in self._by_name.values()]
        return [*files, Entry(GUEST, self._guest())]

    def name(self, role: int) -> str:
        """A file's name, for messages. Raises KeyError."""
        return self._by_role[role].name.decode()

    def source(self, role: int) -> Source:
        """Where a file's content comes from. Raises KeyError."""
        return self._by_role[role].source

    def disk_number(self, role: int) -> int | None:
        """Which disk a file is, or describes."""
        for first in (inodes.DISK_DESCRIPTOR, inodes.DISK_FLAT):
            if first <= role < first + len(self.point.disks):
                return role - first
        return None

    def _guest(self) -> Node:
        folder = Number(self._prefix, inodes.POINT_FOLDER).inode
        inode = Number(self._prefix, inodes.GUEST_FOLDER).inode
        return Node(inode, NodeKind.FOLDER, moment_of(self.point.time), folder)

    def _node(self, file: _File) -> Node:
        folder = Number(self._prefix, inodes.POINT_FOLDER).inode
        return Node(
            Number(self._prefix, file.role).inode,
            NodeKind.FILE,
            moment_of(self.point.time),
            folder,
            size=file.size,
            allocated=file.allocated,
        )


def _whole(name: bytes, role: int, content: bytes) -> _File:
    return _File(name, role, len(content), len(content), content)


def _disks(point: Point) -> list[_File]:
    files = []
    for number, disk in enumerate(point.disks[: inodes.DISKS_MAX]):
        flat_name = f"disk{number}-flat.vmdk"
        identity = point.point_id + number.to_bytes(4, "big")
        text = describe_flat_disk(flat_name, disk.size, identity)
        files.append(_whole(f"disk{number}.vmdk".encode(), inodes.DISK_DESCRIPTOR + number, text))
        role = inodes.DISK_FLAT + number
        files.append(_File(flat_name.encode(), role, disk.size, disk.allocated, disk))
    return files


def _config_files(point: Point, taken: set[bytes]) -> list[_File]:
    shown = point.files[: inodes.CONFIG_FILES_MAX]
    names = distinct_names((file.name for file in shown), taken)
    return [
        _File(name, inodes.CONFIG_FILE + number, file.size, file.size, file)
        for number, (name, file) in enumerate(zip(names, shown, strict=True))
    ]
