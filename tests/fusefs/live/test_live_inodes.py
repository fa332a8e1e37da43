"""Numbers of what is in sessions: they lead back, and are nobody else's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.mounted.guest_inodes import is_guest_file, is_guest_folder
from backpoint_fusefs.inodes import (
    BY_DATE,
    DAY_FOLDER,
    DAY_LINK,
    LIVE,
    POINT,
    README,
    ROOT,
    VM_FOLDER,
    VM_LATEST,
    VMS,
    Number,
)
from backpoint_fusefs.live.live_node import NUMBER_MAX, ROOT_NODE
from backpoint_fusefs.live.mounted.live_inodes import (
    LiveNumber,
    is_live,
    session_number,
    session_root,
    take_live_apart,
    unknown_session,
)

SESSIONS = st.integers(0, (1 << 32) - 1)
NODES = st.integers(0, NUMBER_MAX)


@given(SESSIONS, NODES)
def test_a_number_leads_back(session: int, node: int) -> None:
    """To its session and its node, in 64 bits, and it is no guest's."""
    inode = LiveNumber(session, node).inode
    assert is_live(inode)
    assert 0 < inode < 1 << 64
    assert take_live_apart(inode) == (session, node)
    assert not is_guest_file(inode)
    assert not is_guest_folder(inode)


@given(st.integers(0, (1 << 48) - 1))
def test_other_numbers_are_not_taken_for_live_ones(prefix: int) -> None:
    """Of points, VMs, days, and what is always there."""
    roles = (VM_FOLDER, VM_LATEST, DAY_FOLDER, DAY_LINK, DAY_LINK + 0x400, POINT, POINT | 0x4400)
    assert not any(is_live(Number(prefix, role).inode) for role in roles)
    assert not any(is_live(inode) for inode in (ROOT, VMS, BY_DATE, README, LIVE))


def test_a_sessions_folder_has_a_number_of_its_own() -> None:
    """Made of its id; of its name where the id cannot be read."""
    root = take_live_apart(session_root("89abcdef01234567"))
    assert root == (session_number("89abcdef01234567"), ROOT_NODE) == (0x89ABCDEF, 1)
    assert is_live(unknown_session("broken"))
    assert unknown_session("broken") != unknown_session("other")
    assert take_live_apart(unknown_session("broken")).node not in (ROOT_NODE, 2)
