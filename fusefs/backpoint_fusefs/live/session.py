"""A session that this process has: names, disks and files together, written, cut and frozen as one.

One process has a session at a time (a lock on its folder). Decides what is consistent with what:
writers go on side by side, a cut waits for them and sees all disks and files at one moment. FUSE,
inode numbers and how a commit stores things are not known here.
"""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from backpoint_fusefs.live.cut_taking import CutTaking, delete_cuts, plan_cut
from backpoint_fusefs.live.errors import NoSuchSession, SessionDamaged, SessionInUse
from backpoint_fusefs.live.live_file import LiveFile
from backpoint_fusefs.live.live_node import fault
from backpoint_fusefs.live.node_tree import NAMES, LiveNode, NodeTree, NodeType
from backpoint_fusefs.live.overlay.overlay_disk import OverlayDisk
from backpoint_fusefs.live.plain_file import OpenFiles, PlainFile
from backpoint_fusefs.live.session_cut import CUTS
from backpoint_fusefs.live.session_disks import DISKS, SessionDisks
from backpoint_fusefs.live.session_disks import OpenBase as OpenBase
from backpoint_fusefs.live.session_file import SessionFile
from backpoint_fusefs.live.session_lock import FolderLock
from backpoint_fusefs.live.session_record import SessionRecord, own_record, write_record
from backpoint_fusefs.live.write_gate import WriteGate
from backpoint_repo.durable_file import delete_unfinished
from backpoint_repo.errors import UsageError

FILES: Final = "files"


class Session:
    """Thread-safe; all but `names`' reads may wait. OSError has the system's errno."""

    names: NodeTree

    def __init__(self, folder: Path, open_base: OpenBase) -> None:
        """Take the lock and open. Raises NoSuchSession, SessionInUse, SessionDamaged, and
        UnknownFormat where a newer program wrote it."""
        self._folder = folder
        try:
            self._lock = FolderLock(folder)
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchSession(f"there is no session {folder.name} in {folder.parent}") from None
        try:
            self._record = own_record(folder)
            _refuse_links(folder)
            self.names = _open_names(folder)
        except BaseException:
            self._lock.release()
            raise
        self.names.read_only = self._record.frozen
        self._gate = WriteGate(frozen=self._record.frozen)
        self._open_files = OpenFiles()
        self._plain: dict[int, PlainFile] = {}
        self._disks = SessionDisks(folder, open_base)
        self._files: dict[int, SessionFile] = {}
        self._changing = threading.Lock()
        """One cut, rebase or freeze at a time."""
        self._opening = threading.RLock()
        """Guards which files and disks are open; may be held while a repository is read."""
        self._closed = False
        self._clear_up()

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def record(self) -> SessionRecord:
        return self._record

    def file(self, number: int) -> LiveFile:
        """The content of a DISK or FILE node: one object per node as long as the session is open.
        Its `write`, `resize` and `zero` raise SessionFrozen while the session is frozen.

        Raises OSError (ENOENT, EISDIR, EINVAL) where the node has no content, SessionDamaged, and
        what a repository raises.
        """
        found = self._files.get(number)
        if found is not None:
            return found
        with self._opening:
            return self._files.get(number) or self._open_file(number)

    def forget(self, number: int) -> None:
        """An unlinked node that nobody has open any more: its content goes, and the node.

        Harmless where it is gone, or has a name. Raises OSError.
        """
        node = self.names.node(number)
        if node is None or node.parent:
            return
        with self._opening:
            self._drop_content(node)
            self.names.drop(number)
            self._sweep_disks()

    def cut(self) -> int:
        """The moment for a commit, durable: the number of the cut. All disks have a layer of this
        number that ends; small files and names are copied to `cuts/<number>/`. Writers wait
        meanwhile, no longer than needed. Where it fails there is no such cut, and its number is
        not used again.

        Raises SessionInUse where it was closed, OSError, and what a repository raises.
        """
        with self._changing:
            self._refuse_closed()
            with self._opening:
                self._open_written_disks()
            self.sync()
            # Where it failed before, a commit of the cut before this one may still be under way.
            delete_cuts(self._folder, self._record.cut - 1)
            taking = CutTaking(self._folder, self._record.cut + 1)
            try:
                with self._opening, self._gate.shut():
                    number = self._cut_all(taking)
                taking.finish()
            except BaseException:
                taking.give_up()
                raise
        return number

    def rebase(self, point_id: str, through: int) -> None:
        """The point holds all up to cut `through` now: go on over it, delete what it holds.

        The caller holds that point in the repository, and drops its hold on the one before
        afterwards. Harmless when repeated. Raises SessionInUse where it was closed; UsageError
        where that was not cut; what a repository raises where the point cannot lie below all the
        disks; nothing has changed then. OSError, after which the session may or may not stand on
        the point: `record` tells.
        """
        with self._changing, self._opening:
            self._refuse_closed()
            record = self._record
            if (record.point_id, record.floor) == (point_id, through):
                return
            if not record.floor < through <= record.cut:
                raise UsageError(f"there is no cut {through} of the session {record.name}")
            bases = self._disks.bases(point_id, self._disk_numbers())
            self._replace(point_id=point_id, floor=through)
            self._disks.rebase(bases, through)
            delete_cuts(self._folder, through)
            self._sweep_disks()

    def set_frozen(self, frozen: bool) -> None:
        """Durable. What was written before is synced first. Raises SessionInUse where it was
        closed, OSError."""
        with self._changing:
            self._refuse_closed()
            if frozen == self._record.frozen:
                return
            if frozen:
                self.sync()
            with self._gate.shut():
                if frozen:
                    self.sync()
                self._replace(frozen=frozen)
                self._gate.frozen = self.names.read_only = frozen

    def sync(self) -> None:
        """Raises OSError."""
        with self._opening:
            files: list[OverlayDisk | PlainFile] = [*self._disks.opened(), *self._plain.values()]
        for file in files:
            file.sync()
        self.names.save_times()

    def close(self) -> None:
        """Sync, and let go of the lock. Raises OSError where the sync fails; closed all the same.
        Harmless when repeated; whoever writes after it is told that the session is frozen."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            try:
                with self._gate.shut():
                    self._gate.frozen = True
                    self.sync()
            finally:
                with self._opening:
                    self._files.clear()
                    self._plain.clear()
                    self._disks.close()
                    self._open_files.close()
                self.names.close()
                self._lock.release()

    def _refuse_closed(self) -> None:
        # Its lock is gone: another process may have the session, and would not hear of it.
        if self._closed:
            raise SessionInUse(f"the session {self._record.name} was let go of; try again")

    def _open_file(self, number: int) -> SessionFile:
        node = self.names.node(number)
        if node is None:
            raise fault(errno.ENOENT, b"")
        if node.type in (NodeType.FOLDER, NodeType.LINK):
            raise fault(errno.EISDIR if node.type is NodeType.FOLDER else errno.EINVAL, node.name)
        if node.disk is not None:
            found = SessionFile(self._disk(node.disk), self._gate)
        else:
            self._plain[number] = PlainFile(self._path(number), self._open_files)
            found = SessionFile(self._plain[number], self._gate)
        self._files[number] = found
        return found

    def _disk(self, number: int) -> OverlayDisk:
        return self._disks.get(number, self._record.point_id, self._record.floor)

    def _path(self, number: int) -> Path:
        return self._folder / FILES / str(number)

    def _open_written_disks(self) -> None:
        there = self._disk_numbers()
        for number in self._disks.written():
            if number in there:
                self._disk(number)

    def _cut_all(self, taking: CutTaking) -> int:
        """The number is used up first: whatever fails later, no other cut is called so."""
        number = self._record.cut + 1
        self._replace(cut=number)
        plan = plan_cut(self.names.linked(), self._size)
        taking.copy(plan, self._path)
        for disk in self._disks.opened():
            disk.cut(number)
        return number

    def _size(self, number: int) -> int:
        return PlainFile(self._path(number), self._open_files).size

    def _replace(self, **changed: Any) -> None:
        record = replace(self._record, **changed)
        write_record(self._folder, record)
        self._record = record

    def _disk_numbers(self) -> set[int]:
        """Of disks whose file has a name, or is still open."""
        nodes: list[LiveNode] = [*self.names.linked(), *self.names.unlinked()]
        return {node.disk for node in nodes if node.disk is not None}

    def _sweep_disks(self) -> None:
        # A commit of what was cut may still be reading the layers.
        if self._record.cut == self._record.floor:
            self._disks.sweep(self._disk_numbers())

    def _drop_content(self, node: LiveNode) -> None:
        self._files.pop(node.number, None)
        self._plain.pop(node.number, None)
        if node.disk is not None:
            self._disks.forget(node.disk)
        else:
            path = self._path(node.number)
            self._open_files.close(path)
            path.unlink(missing_ok=True)

    def _clear_up(self) -> None:
        """What a crash left. A disk that is full must not keep anybody from the session."""
        with suppress(OSError):
            left = self.names.unlinked()
            for node in left:
                self._drop_content(node)
            self.names.drop(*(node.number for node in left))
            delete_unfinished(self._folder)
            for path in (self._folder / FILES).iterdir():
                if path.name.isdecimal() and self.names.node(int(path.name)) is None:
                    path.unlink()
            delete_cuts(self._folder, self._record.floor)
            self._sweep_disks()


def _refuse_links(folder: Path) -> None:
    """What lies behind one is not the session's, and much in these folders is deleted."""
    disks = folder / DISKS
    below = list(disks.iterdir()) if disks.is_dir() and not disks.is_symlink() else []
    for path in (folder / FILES, disks, folder / CUTS, *below):
        if path.is_symlink():
            raise SessionDamaged(f"{path} is a link, where the session's own folder should be")


def _open_names(folder: Path) -> NodeTree:
    path = folder / NAMES
    try:
        path.lstat()
        return NodeTree(path)
    except OSError as error:
        raise SessionDamaged(f"{path} cannot be opened: {error.strerror}") from error
