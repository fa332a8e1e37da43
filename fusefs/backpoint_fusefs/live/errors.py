"""What goes wrong with sessions, for users: each message says what to do."""

from __future__ import annotations

from backpoint_repo.errors import BackpointError, UsageError


class NoSuchSession(UsageError):
    """There is no session of this name in the folder of sessions."""


class SessionInUse(BackpointError):
    """Another process has the session open and does not answer, or does not let go of it; or this
    one has let go of it meanwhile."""

    exit_code = 4


class SessionDamaged(BackpointError):
    """The session's own files are not what this program wrote."""

    exit_code = 4


class SessionStorageFailed(BackpointError):
    """The disk that sessions are kept on is full, or fails."""

    exit_code = 4


class SessionFrozen(BackpointError):
    """The session is frozen for inspection, so nothing in it can be written (EROFS)."""

    exit_code = 2
