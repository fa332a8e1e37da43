"""What proofs add to a point in the mount: proof.json, screen.png, extended attributes.

Decides their names and what they say. Pure: what was read of a point's proofs in, nodes and bytes
out. These files come and change while the mount is there, unlike all else of a point.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from backpoint_fusefs import inodes
from backpoint_fusefs.inodes import Number, point_prefix
from backpoint_fusefs.node import Entry, Node, NodeKind
from backpoint_repo.point_proof import History, Unreadable
from backpoint_repo.point_record import history_records
from backpoint_repo.point_selector import format_time
from backpoint_repo.proof import Proof

PROOF_NAME: Final = b"proof.json"
SCREEN_NAME: Final = b"screen.png"
ROLES: Final = {PROOF_NAME: inodes.PROOF_JSON, SCREEN_NAME: inodes.PROOF_SCREEN}
_NONE: Final = "none"


@dataclass(frozen=True)
class PointProofs:
    """The newest proofs of one point; ids: of all that were looked for, newest first."""

    point_id: bytes
    ids: tuple[str, ...]
    history: History

    @classmethod
    def none(cls, point_id: bytes) -> PointProofs:
        """Of a point that nobody tried to prove."""
        return cls(point_id, (), History((), ()))

    @cached_property
    def text(self) -> bytes:
        """proof.json: the newest proof, and `history`, which begins with it. UTF-8."""
        records = history_records(self.history)
        record = {**(records[0] if records else {}), "history": records}
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    @property
    def newest(self) -> Proof | Unreadable | None:
        """Whether or not it is good, or can be read."""
        every: list[Proof | Unreadable] = [*self.history.proofs, *self.history.unreadable]
        return max(every, key=lambda proof: proof.proof_id, default=None)

    @property
    def pictured(self) -> Proof | None:
        """The newest with a screenshot."""
        return next((proof for proof in self.history.proofs if proof.screenshot_size), None)

    def node(self, role: int) -> Node | None:
        """proof.json or screen.png, where there is one."""
        newest, pictured = self.newest, self.pictured
        if role == inodes.PROOF_JSON and newest is not None:
            return self._file(role, newest.at, len(self.text))
        if role == inodes.PROOF_SCREEN and pictured is not None:
            return self._file(role, pictured.at, pictured.screenshot_size)
        return None

    def entries(self) -> list[Entry]:
        """Those that are there."""
        nodes = ((name, self.node(role)) for name, role in ROLES.items())
        return [Entry(name, node) for name, node in nodes if node is not None]

    def xattrs(self) -> dict[str, str]:
        """By name without the prefix; none where nobody tried to prove the point."""
        newest = self.newest
        if newest is None:
            return {}
        if isinstance(newest, Unreadable):
            return {"proof": f"unreadable {format_time(newest.at)}", "proof_level": _NONE}
        proved, failed = newest.proved_level, newest.failed_level
        told = {
            "proof": newest.words,
            "proof_level": proved.value if proved else _NONE,
            "proof_time": format_time(newest.at),
            "proof_tool": newest.tool,
        }
        return told | ({"proof_failed": failed.value} if failed else {})

    def _file(self, role: int, at: float, size: int) -> Node:
        prefix = point_prefix(self.point_id)
        folder = Number(prefix, inodes.POINT_FOLDER).inode
        inode = Number(prefix, role).inode
        return Node(inode, NodeKind.FILE, at, folder, growing=True, size=size, allocated=size)
