"""One thing in the mounted tree, as far as a listing of its folder tells.

Pure values between `tree.py`, `point_folder.py` and the adapters; decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from backpoint_fusefs.inodes import ROOT


class NodeKind(Enum):
    """What a node is to a file system."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Node:
    """size, allocated: bytes of a file. modified: seconds since 1970. subfolders: of a folder.

    growing: whether it can be different a second later (a folder of VMs or points, `latest`, a
    point's folder and its proofs); everything else never changes as long as it
    exists. folder: inode of the folder it lies in.
    """

    inode: int
    kind: NodeKind
    modified: float
    folder: int = ROOT
    growing: bool = False
    size: int = 0
    allocated: int = 0
    subfolders: int = 0
    target: bytes = b""


class Entry(NamedTuple):
    """A line of a folder's listing."""

    name: bytes
    node: Node
