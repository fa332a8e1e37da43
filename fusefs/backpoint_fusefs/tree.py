"""What a mount looks like down to the points' folders: which names there are and what they are.

Pure: a listing of points in, nodes out. What is inside a point is for `point_folder.py`; numbers
are for `inodes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backpoint_fusefs import inodes
from backpoint_fusefs.inodes import BY_DATE, LIVE, README, ROOT, VMS, Number, take_apart
from backpoint_fusefs.listing import DAY_S, Listing, day_name, day_of, moment_of
from backpoint_fusefs.node import Entry, Node, NodeKind
from backpoint_repo.catalog import PointSummary

LATEST: Final = b"latest"
LIVE_NAME: Final = b"live"
_README: Final = """\
Every folder here is a restore point: a virtual machine as it was at one moment. Nothing here can be
changed, and new points appear by themselves.

vms/<vm>/<time>/     one point; times are UTC
vms/<vm>/latest      the newest point of a VM
by-date/<day>/<vm>   the newest point of a VM on that day

In a point's folder:
  diskN-flat.vmdk    the disk, byte for byte, as a raw image
  diskN.vmdk         a small text file; give this one to VMware or QEMU
  guest/root/        the guest's own files, as the guest sees them
  guest/VOLUME/      the files of one partition or logical volume
  point.json         what is known about the point
  proof.json         whether it was tried if the point is good, and what came of it
  screen.png         what the screen showed when it was booted for that
  and the VM's own configuration files, where they were backed up.

Restore a file, or a folder:             cp -a guest/root/FILE .    rsync -aHAX guest/root/DIR .
Where something cannot be read, a WHY.txt in its place or beside it says why.
Convert a disk:                          qemu-img convert diskN.vmdk -O qcow2 FILE
Copy a disk and keep its holes:          cp --sparse=always diskN-flat.vmdk FILE
Facts about a point or a disk:           getfattr -d FILE
"""
_README_LIVE: Final = """
live/<session>/ can be written to: a point's folder, with what was written since kept beside the
repository. `backpoint live start VM@POINT` begins one, `backpoint live commit` makes a new point of
it, `backpoint live discard` ends it.
"""

LiveChanged = Callable[[], float]
"""When a session last came or went, in seconds since 1970."""


class Tree:
    """One listing as folders. changed: when the listing last changed, in seconds since 1970."""

    def __init__(self, listing: Listing, changed: float, live: LiveChanged | None = None) -> None:
        """live: None where no sessions are shown. What is in `live/` is for `live/`."""
        self.listing = listing
        self.changed = changed
        self._live = live

    @property
    def readme(self) -> bytes:
        """The text of README.txt."""
        return (_README + (_README_LIVE if self._live else "")).encode()

    def node(self, inode: int) -> Node | None:
        """The node with this number, whether or not anybody looked it up; None: not (or no more)
        there. For anything inside a point: the point's folder is answered by `point_at`."""
        number = take_apart(inode)
        if number.role >= inodes.POINT:
            point = self.point_at(inode)
            at_folder = point is not None and number.role == inodes.POINT_FOLDER
            return self.point_node(point) if point is not None and at_folder else None
        if number.role == inodes.FIXED:
            known = inode in (ROOT, VMS, BY_DATE, README) or (inode == LIVE and self._live)
            return self._fixed(inode) if known else None
        if number.role == inodes.DAY_FOLDER:
            return self._day(number.prefix) if number.prefix in self.listing.days else None
        vm = self.listing.vm_by_prefix.get(number.prefix)
        if vm is None or number.role in (inodes.VM_FOLDER, inodes.VM_LATEST):
            return None if vm is None else self._of_vm(vm, number.role)
        residue = number.role - inodes.DAY_LINK
        day = self.listing.day_of_residue(vm, residue, inodes.DAY_LINKS)
        return None if day is None else self._day_link(day, vm)

    def point_at(self, inode: int) -> PointSummary | None:
        """The point that a node is in, by the node's number."""
        number = take_apart(inode)
        return self.listing.by_prefix.get(number.prefix) if number.role >= inodes.POINT else None

    def point_node(self, point: PointSummary) -> Node:
        """The folder of a point."""
        return Node(
            Number(inodes.point_prefix(point.point_id), inodes.POINT_FOLDER).inode,
            NodeKind.FOLDER,
            moment_of(point.time),
            folder=Number(inodes.vm_prefix(point.vm), inodes.VM_FOLDER).inode,
            growing=True,  # by its proofs
        )

    def find(self, folder: Node, name: bytes) -> Node | None:
        """What a folder (not a point's) has under this name."""
        listing, number = self.listing, take_apart(folder.inode)
        if folder.inode == VMS:
            vm = listing.vm_by_name.get(name)
            return None if vm is None else self._of_vm(vm, inodes.VM_FOLDER)
        vm = listing.vm_by_prefix.get(number.prefix)
        if number.role == inodes.VM_FOLDER and vm is not None:
            if name == LATEST:
                return self._of_vm(vm, inodes.VM_LATEST)
            point = listing.find(vm, name)
            return None if point is None else self.point_node(point)
        if number.role == inodes.DAY_FOLDER:
            of_day = listing.days.get(number.prefix, {})
            vm = listing.vm_by_name.get(name)
            return self._day_link(number.prefix, vm) if vm is not None and vm in of_day else None
        return next((entry.node for entry in self.entries(folder) if entry.name == name), None)

    def entries(self, folder: Node) -> list[Entry]:
        """All that a folder (not a point's) holds."""
        listing, number = self.listing, take_apart(folder.inode)
        if folder.inode == ROOT:
            names = {b"README.txt": README, b"vms": VMS, b"by-date": BY_DATE}
            names |= {LIVE_NAME: LIVE} if self._live else {}
            return [Entry(name, self._fixed(inode)) for name, inode in names.items()]
        if folder.inode == VMS:
            pairs = listing.vm_names.items()
            return [Entry(name, self._of_vm(vm, inodes.VM_FOLDER)) for vm, name in pairs]
        if folder.inode == BY_DATE:
            return [Entry(day_name(day), self._day(day)) for day in sorted(listing.days)]
        if number.role == inodes.DAY_FOLDER:
            own = listing.days.get(number.prefix, {})
            return [Entry(listing.vm_names[vm], self._day_link(number.prefix, vm)) for vm in own]
        vm = listing.vm_by_prefix.get(number.prefix)
        if number.role != inodes.VM_FOLDER or vm is None:
            return []
        points = [Entry(name, self.point_node(point)) for name, point in listing.of_vm(vm)]
        return [*points, Entry(LATEST, self._of_vm(vm, inodes.VM_LATEST))]

    def _fixed(self, inode: int) -> Node:
        if inode == README:
            size = len(self.readme)
            return Node(README, NodeKind.FILE, 0.0, size=size, allocated=size)
        if inode == LIVE and self._live:
            return Node(LIVE, NodeKind.FOLDER, self._live(), growing=True)
        root = 3 if self._live else 2
        subfolders = {VMS: len(self.listing.vms), BY_DATE: len(self.listing.days)}.get(inode, root)
        # The root too: were its attributes kept for long, a dead mount would look alive.
        return Node(inode, NodeKind.FOLDER, self.changed, growing=True, subfolders=subfolders)

    def _of_vm(self, vm: str, role: int) -> Node:
        """The folder of a VM, or its `latest`."""
        listing, inode = self.listing, Number(inodes.vm_prefix(vm), role).inode
        newest = listing.newest(vm)
        if role == inodes.VM_FOLDER:
            count, modified = len(listing.vms[vm]), moment_of(newest.created)
            return Node(inode, NodeKind.FOLDER, modified, VMS, growing=True, subfolders=count)
        folder = Number(inodes.vm_prefix(vm), inodes.VM_FOLDER).inode
        return _link(inode, moment_of(newest.time), folder, listing.name_of(newest))

    def _day(self, day: int) -> Node:
        inode = Number(day, inodes.DAY_FOLDER).inode
        return Node(inode, NodeKind.FOLDER, float(day * DAY_S), BY_DATE, growing=True)

    def _day_link(self, day: int, vm: str) -> Node:
        point = self.listing.days[day][vm]
        target = b"/".join((b"../../vms", self.listing.vm_names[vm], self.listing.name_of(point)))
        inode = Number(inodes.vm_prefix(vm), inodes.day_link_role(day_of(point))).inode
        folder = Number(day, inodes.DAY_FOLDER).inode
        return _link(inode, moment_of(point.time), folder, target)


def _link(inode: int, modified: float, folder: int, target: bytes) -> Node:
    return Node(
        inode, NodeKind.LINK, modified, folder, growing=True, size=len(target), target=target
    )
