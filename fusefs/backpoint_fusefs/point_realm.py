"""Everything in the mount but guest files: VMs, days, points, and the files of a point's folder.

Finds what an inode number stands for, loads points when they are touched, opens their files. What
the tree looks like is for `tree.py` and `point_folder.py`; errno is for `operations.py`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import outcome
from pyfuse3 import EntryAttributes

from backpoint_fusefs import inodes
from backpoint_fusefs.attributes import (
    XATTR_PREFIX,
    Owner,
    attributes_of,
    disk_xattrs,
    point_xattrs,
    text_xattrs,
)
from backpoint_fusefs.catalog_watch import CatalogWatch
from backpoint_fusefs.content import BytesContent
from backpoint_fusefs.decode_workers import DecodeWorkers
from backpoint_fusefs.inodes import README, ROOT, take_apart
from backpoint_fusefs.kernel_notices import tell_kernel
from backpoint_fusefs.listing import moment_of
from backpoint_fusefs.mount_lease import MountLease
from backpoint_fusefs.node import Entry, Node, NodeKind
from backpoint_fusefs.open_file import OpenFile, PrefetchBudget
from backpoint_fusefs.point_folder import PointFolder
from backpoint_fusefs.point_proofs import ROLES, PointProofs
from backpoint_fusefs.point_shelf import PointShelf
from backpoint_fusefs.process_mark import process_mark
from backpoint_fusefs.realm import Line, NotAFile, NotAFolder, Stale
from backpoint_fusefs.told_once import ToldOnce
from backpoint_fusefs.tree import LATEST, Tree
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import RepositoryError
from backpoint_repo.pin import pin_of
from backpoint_repo.point_selector import format_time

PROCESS_XATTR: Final = XATTR_PREFIX + b"process"
"""On the root: which process serves the mount, so that `umount` can wait for its end."""


@dataclass(frozen=True)
class MountParts:
    """What a mount stands on. tell: says a failure in the log, once."""

    watch: CatalogWatch
    shelf: PointShelf
    workers: DecodeWorkers
    budget: PrefetchBudget
    lease: MountLease
    owner: Owner
    tell: ToldOnce


class PointRealm:
    """See `Realm`."""

    def __init__(self, parts: MountParts) -> None:
        self._parts = parts
        self._looking = False

    async def attributes(self, inode: int) -> EntryAttributes:
        if take_apart(inode).role == inodes.POINT_FOLDER:
            self._look_soon()
        return self._attributes(await self._node(inode))

    async def parent(self, folder: int) -> int:
        return (await self._node(folder)).folder

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        node = await self._folder_node(folder)
        point = self._tree.point_at(folder)
        if point is not None and name in ROLES:
            found = (await self._proofs(point)).node(ROLES[name])
        elif point is not None:
            found = (await self.point_folder(point)).find(name)
        else:
            found = self._tree.find(node, name)
            if node.growing and (found is None or name == LATEST):
                # Who asks for the latest right after a backup means that one.
                await self._parts.watch.refresh(tell_kernel)
                found = self._tree.find(node, name)
        return None if found is None else self._attributes(found)

    async def listing(self, folder: int) -> PointListing:
        node = await self._folder_node(folder)
        point = self._tree.point_at(folder)
        if point is not None:
            entries = (await self.point_folder(point)).entries()
            entries = [*entries, *(await self._proofs(point)).entries()]
        else:
            if node.growing:
                await self._parts.watch.refresh(tell_kernel)
            entries = self._tree.entries(node)
        return PointListing(entries, self._attributes)

    async def target(self, link: int) -> bytes:
        return (await self._node(link)).target

    async def open(self, file: int) -> OpenFile:
        parts = self._parts
        if file == README:
            text = BytesContent(self._tree.readme)
            return OpenFile(text, parts.workers, parts.budget, "README.txt")
        node, point = await self._node(file), self._tree.point_at(file)
        if node.kind is not NodeKind.FILE or point is None:
            raise NotAFile
        role = take_apart(file).role
        if role in ROLES.values():
            return await self._open_proof(point, role)
        folder = await self.point_folder(point)
        content = parts.shelf.content(folder, role)
        label = f"{point_label(point)} {folder.name(role)}"
        # Without an await since the content was found: a pin and its file come together.
        unpin = parts.lease.pinned(pin_of(folder.point))
        return OpenFile(content, parts.workers, parts.budget, label, unpin)

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        if inode == ROOT:
            return {PROCESS_XATTR: process_mark(os.getpid())}
        point = self._tree.point_at(inode)
        if point is None:
            return {}
        folder, role = await self.point_folder(point), take_apart(inode).role
        number = folder.disk_number(role)
        if number is None and role != inodes.POINT_FOLDER:
            return {}
        own = point_xattrs(folder.point) if number is None else disk_xattrs(folder.point, number)
        return own | text_xattrs((await self._proofs(point)).xattrs())

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        return None

    async def point_folder(self, point: PointSummary) -> PointFolder:
        """The folder of a point, loaded if it is not at hand."""
        folder = self._parts.shelf.kept(point.point_id)
        if folder is None:
            folder = await self._parts.workers.run(self._parts.shelf.folder, point.point_id)
            if folder.hidden:
                self._parts.tell(
                    f"{point_label(point)}: {folder.hidden} files of this point are not shown"
                )
        return folder

    def _look_soon(self) -> None:
        """Who asks for a folder's stat may want to know whether it is what it was, and must not
        wait for a store on the way to a file: the next one is told."""
        shelf = self._parts.shelf.proofs
        if shelf.old and not self._looking:
            self._looking = True
            self._parts.workers.start(shelf.look, deliver=self._looked)

    def _looked(self, result: outcome.Outcome[None]) -> None:
        self._looking = False
        if isinstance(result, outcome.Error) and isinstance(result.error, RepositoryError):
            self._parts.tell(f"cannot look for new proofs: {result.error}")

    async def _proofs(self, point: PointSummary) -> PointProofs:
        """What is known of a point's proofs, some seconds old at most where the store answers."""
        shelf, workers = self._parts.shelf.proofs, self._parts.workers
        if shelf.old:
            try:
                await workers.run(shelf.look)
            except RepositoryError as error:
                self._parts.tell(f"cannot look for new proofs: {error}")
        kept = shelf.kept(point.point_id)
        if kept is None:
            kept = await workers.run(shelf.read, point.point_id)
            for unreadable in kept.history.unreadable:
                self._parts.tell(f"{point_label(point)}: a proof cannot be read: {unreadable.why}")
        return kept

    async def _open_proof(self, point: PointSummary, role: int) -> OpenFile:
        parts, proofs = self._parts, await self._proofs(point)
        text, pictured = proofs.text, proofs.pictured
        if role == inodes.PROOF_SCREEN:
            if pictured is None:
                raise Stale
            found = (point.point_id, pictured.proof_id)
            text = await parts.workers.run(parts.shelf.proofs.screenshot, *found)
        label = f"{point_label(point)}'s proof"
        return OpenFile(BytesContent(text), parts.workers, parts.budget, label)

    @property
    def _tree(self) -> Tree:
        return self._parts.watch.tree

    def _attributes(self, node: Node) -> EntryAttributes:
        return attributes_of(node, self._parts.owner, self._changed(node))

    def _changed(self, node: Node) -> float:
        """When it last changed. Of a point's folder that is its newest proof, as far as is known:
        nobody looks for one here, because folders are listed by the ten thousand."""
        point = self._tree.point_at(node.inode)
        if point is None:
            return self._tree.changed
        proved = self._parts.shelf.proofs.newest_at(point.point_id)
        return max(moment_of(point.time), proved or 0.0)

    async def _folder_node(self, inode: int) -> Node:
        node = await self._node(inode)
        if node.kind is not NodeKind.FOLDER:
            raise NotAFolder
        return node

    async def _node(self, inode: int) -> Node:
        """The node, also where the kernel (or an NFS client) knows its number from long ago."""
        found = self._tree.node(inode)
        point, role = self._tree.point_at(inode), take_apart(inode).role
        if point is not None and role in ROLES.values():
            found = (await self._proofs(point)).node(role)
        elif point is not None and found is None:
            found = (await self.point_folder(point)).node(role)
        if found is None:
            raise Stale
        return found


class PointListing:
    """See `FolderListing`. All entries at once: these folders are small or in memory anyway."""

    def __init__(
        self, entries: Sequence[Entry], attributes: Callable[[Node], EntryAttributes]
    ) -> None:
        self._entries = entries
        self._attributes = attributes

    async def lines(self, start: int) -> Iterable[Line]:
        """Made while they are taken."""
        rest = enumerate(itertools.islice(self._entries, start, None), start + 1)
        return ((at, name, self._attributes(node)) for at, (name, node) in rest)


def point_label(point: PointSummary) -> str:
    """`vm time`, for messages."""
    return f"{point.vm} {format_time(moment_of(point.time))}"
