"""What goes wrong with an export while it runs, for users."""

from __future__ import annotations

from backpoint_repo.errors import BackpointError


class ExportFailed(BackpointError):
    """The NFS server or the mount below it cannot be kept running."""

    exit_code = 4
