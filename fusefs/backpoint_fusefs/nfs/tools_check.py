"""Whether this machine and this user can export at all, told before anybody is asked for a
passphrase."""

from __future__ import annotations

import os
import shutil

from backpoint_fusefs.nfs.ganesha import PACKAGES, PROGRAM
from backpoint_repo.errors import UsageError


def check_tools() -> None:
    """Raises UsageError, with the remedy."""
    if shutil.which(PROGRAM) is None:
        raise UsageError(
            f"NFS-Ganesha is not installed: install the packages {PACKAGES}, or let the kernel's "
            "NFS server do it (--print-exports)"
        )
    if os.geteuid() != 0:
        raise UsageError(
            "exporting needs root: file handles that outlive a restart take a block device, and "
            "NFS-Ganesha acts for its clients' users"
        )
