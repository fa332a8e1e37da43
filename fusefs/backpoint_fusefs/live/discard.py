"""The end of a session: whoever has it lets go, then all of it goes.

Decides that nobody works on it meanwhile; what is deleted is for `session_home.py`.
"""

from __future__ import annotations

from backpoint_fusefs.live.committing.commit_lock import alone_with
from backpoint_fusefs.live.control.holder import hold
from backpoint_fusefs.live.errors import NoSuchSession, SessionDamaged
from backpoint_fusefs.live.session_home import SessionHome, SessionState
from backpoint_fusefs.live.session_names import checked_name


def find_session(home: SessionHome, name: str) -> SessionState:
    """Damaged ones too. Raises NoSuchSession."""
    found = home.list()
    for state in found:
        if state.name == name:
            return state
    known = ", ".join(state.name for state in found) or "none at all"
    raise NoSuchSession(f"there is no session {name!r} in {home.folder}; there are: {known}")


def discard_session(home: SessionHome, name: str) -> int:
    """Also where a mount has it: that one lets go first. Returns bytes freed.

    Raises NoSuchSession, SessionInUse, and what a store raises.
    """
    with alone_with(home.folder / checked_name(name)):
        try:
            with hold(home, name) as holder:
                if holder.remote:
                    holder.release()
        except SessionDamaged:
            pass  # nobody can have it open, and there is nothing to lose
        return home.discard(name)
