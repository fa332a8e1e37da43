"""Making `cuts/<number>/`: what small files and names are at this moment, kept for a commit.

Planned from names and sizes (pure), then copied while nobody writes, and made durable when all
write again. Decides what is left out; what is in such a folder is for `session_cut.py`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeType
from backpoint_fusefs.live.session_cut import (
    CUTS,
    FILE_MAX,
    MANIFEST,
    CutDiskName,
    CutFile,
    LeftOut,
    encode_manifest,
)
from backpoint_repo.durable_file import fsync_folder, write_durably

TOTAL_MAX: Final = 512 << 20
"""Bytes of all copies: where the filesystem cannot share blocks, guests wait for the copying."""
_PATH_MAX: Final = 1024
_FICLONE: Final = 0x40049409
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class CutPlan:
    """What is kept, by path, and what is not."""

    files: tuple[CutFile, ...]
    disks: tuple[CutDiskName, ...]
    left_out: tuple[LeftOut, ...]


def plan_cut(nodes: Iterable[LiveNode], size_of: Callable[[int], int]) -> CutPlan:
    """nodes: all that have a name, the root among them. size_of: bytes of a FILE node."""
    known = {node.number: node for node in nodes}
    named = sorted((_path(node, known), node) for node in known.values() if _has_content(node))
    files, disks, left_out, total = [], [], [], 0
    for path, node in named:
        if node.disk is not None:
            disks.append(CutDiskName(node.disk, path))
            continue
        size = size_of(node.number)
        if why := _refusal(path, size, total):
            left_out.append(LeftOut(path, size, why))
        else:
            files.append(CutFile(path, node.number, size))
            total += size
    disks.sort(key=lambda disk: disk.number)
    return CutPlan(tuple(files), tuple(disks), tuple(left_out))


class CutTaking:
    """A cut that is being made; until `finish` returns there is none, whatever crashes."""

    def __init__(self, session: Path, number: int) -> None:
        """Raises OSError."""
        self._cuts = session / CUTS
        self._number = number
        self._unfinished = self._cuts / f".{number}"
        self._plan = CutPlan((), (), ())
        if not self._cuts.is_dir():
            self._cuts.mkdir(mode=0o700)
            fsync_folder(session)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir(mode=0o700)

    def copy(self, plan: CutPlan, path_of: Callable[[int], Path]) -> None:
        """While nobody writes. path_of: where a FILE node's bytes are. Raises OSError."""
        for file in plan.files:
            _copy(path_of(file.node), self._unfinished / str(file.node))
        self._plan = plan

    def finish(self) -> None:
        """Durable when it returns. Raises OSError."""
        for file in self._plan.files:
            descriptor = os.open(self._unfinished / str(file.node), _READ)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        plan = self._plan
        manifest = encode_manifest(plan.files, plan.disks, plan.left_out)
        write_durably(self._unfinished / MANIFEST, manifest)
        self._unfinished.rename(self._cuts / str(self._number))
        fsync_folder(self._cuts)

    def give_up(self) -> None:
        """Nothing of it stays."""
        shutil.rmtree(self._unfinished, ignore_errors=True)


def delete_cuts(session: Path, through: int) -> None:
    """Cuts up to this number, and what a crash left of unfinished ones. Raises OSError."""
    with suppress(FileNotFoundError):
        for folder in list((session / CUTS).iterdir()):
            old = folder.name.isdecimal() and int(folder.name) <= through
            if old or folder.name.startswith("."):
                shutil.rmtree(folder)


def _has_content(node: LiveNode) -> bool:
    return node.type in (NodeType.FILE, NodeType.DISK)


def _path(node: LiveNode, known: dict[int, LiveNode]) -> str:
    """Below the session's folder; of what is too deep only the end, behind `...`."""
    parts, length = [node.name], len(node.name)
    while node.parent != ROOT_NODE:
        node = known[node.parent]
        length += len(node.name) + 1
        if length > _PATH_MAX:
            parts.append(b"...")
            break
        parts.append(node.name)
    return b"/".join(reversed(parts)).decode("utf-8", "surrogateescape")


def _refusal(path: str, size: int, total: int) -> str:
    if path.startswith(".../"):
        return f"its path is longer than {_PATH_MAX} bytes"
    if size > FILE_MAX:
        return f"a point keeps files up to {FILE_MAX >> 20} MiB beside its disks"
    if total + size > TOTAL_MAX:
        return f"with others it is more than the {TOTAL_MAX >> 20} MiB that a commit keeps"
    return ""


def _copy(source: Path, target: Path) -> None:
    """Shares blocks where the filesystem can. A source that is not there is empty."""
    written = os.open(target, _WRITE, 0o600)
    try:
        read = os.open(source, _READ)
    except FileNotFoundError:
        os.close(written)
        return
    try:
        try:
            fcntl.ioctl(written, _FICLONE, read)
        except OSError:
            while os.sendfile(written, read, None, FILE_MAX):
                pass
    finally:
        os.close(read)
        os.close(written)
