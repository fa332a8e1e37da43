"""Inode numbers of what is in live sessions: 32 bits of the session, 26 bits of the node in it.

Sessions have random ids and never use a node's number twice, so a number means the same thing in
every mount, or nothing. Knows no sessions.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from backpoint_fusefs import inodes
from backpoint_fusefs.inodes import Number, take_apart
from backpoint_fusefs.live.live_node import NUMBER_MAX, ROOT_NODE

_NODE_BITS: Final = NUMBER_MAX.bit_length()
UNKNOWN_NODE: Final = 0
"""The folder of a session whose record cannot be read; sessions have no node 0."""
_LOW_BITS: Final = 10
_HIGH_BITS: Final = _NODE_BITS - _LOW_BITS
_SESSION_DIGITS: Final = 8
_SESSION_SIZE: Final = 4


class LiveNumber(NamedTuple):
    """session: see `session_number`."""

    session: int
    node: int

    @property
    def inode(self) -> int:
        """64 bits."""
        high, low = divmod(self.node, 1 << _LOW_BITS)
        return Number(self.session << _HIGH_BITS | high, inodes.LIVE_NODE | low).inode


def is_live(inode: int) -> bool:
    """Whether it is the number of something in a session."""
    role = take_apart(inode).role
    return inodes.LIVE_NODE <= role < inodes.LIVE_NODE + inodes.LIVE_NODES


def take_live_apart(inode: int) -> LiveNumber:
    """Undo `LiveNumber.inode`, for a number that `is_live`."""
    prefix, role = take_apart(inode)
    session, high = divmod(prefix, 1 << _HIGH_BITS)
    return LiveNumber(session, high << _LOW_BITS | role - inodes.LIVE_NODE)


def session_number(session_id: str) -> int:
    """The first 32 bits of a session's id (hex), which is random."""
    return int(session_id[:_SESSION_DIGITS], 16)


def session_root(session_id: str) -> int:
    """The inode number of a session's folder."""
    return LiveNumber(session_number(session_id), ROOT_NODE).inode


def unknown_session(name: str) -> int:
    """The inode number of the folder of a session whose id cannot be known."""
    digest = hashlib.blake2b(name.encode(), digest_size=_SESSION_SIZE, person=b"backpoint live")
    return LiveNumber(int.from_bytes(digest.digest(), "big"), UNKNOWN_NODE).inode
