"""A file that gets its name only when it is whole.

Decides where it lies until then (beside its final place, under a hidden random name) and how it
is named: durably, and never over an existing file. Refuses to know what is written into it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from backpoint_repo.durable_file import fsync_folder
from backpoint_repo.errors import TargetError, UsageError

_PREFIX = ".backpoint-restore-"
# Filesystems without hard links: FAT, exFAT, some network mounts.
_CANNOT_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class StagedFile:
    """An empty file of mode 0600 at `path`, until `publish` or `discard`."""

    def __init__(self, final: Path) -> None:
        """Raises UsageError where `final` exists or its folder does not, TargetError."""
        self.final = final.absolute()
        refuse_existing(self.final)
        # Its name is ours: the final one may have 255 bytes already.
        self.path = self.final.with_name(_PREFIX + secrets.token_hex(8))
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.descriptor = os.open(self.path, flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(f"there is no folder {str(self.final.parent)!r}") from None
        except OSError as error:
            raise self.failed("create", error) from error

    def publish(self) -> None:
        """Make content and name durable. Raises UsageError where the name is taken, TargetError."""
        try:
            os.fsync(self.descriptor)
            _rename_without_replacing(self.path, self.final)
            try:
                fsync_folder(self.final.parent)
            except OSError:
                self.withdraw()
                raise
        except FileExistsError:
            raise _exists(self.final) from None
        except OSError as error:
            raise self.failed("finish", error) from error
        self._close()

    def withdraw(self) -> None:
        """Take back what `publish` made, because what belongs to it failed. Raises nothing."""
        with contextlib.suppress(OSError):
            self.final.unlink()

    def discard(self) -> None:
        """Remove the unfinished file, if it still is one. Raises nothing."""
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def failed(self, action: str, error: OSError) -> TargetError:
        """The error for an action on this file."""
        return TargetError(f"cannot {action} {str(self.final)!r}: {error.strerror}")

    def _close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def refuse_existing(final: Path) -> None:
    """Raise UsageError where something has this name, be it a dangling link."""
    if os.path.lexists(final):
        raise _exists(final)


def _exists(final: Path) -> UsageError:
    return UsageError(f"{str(final)!r} exists; a restore overwrites no file: choose a new name")


def _rename_without_replacing(path: Path, final: Path) -> None:
    try:
        os.link(path, final)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        # The name is claimed with an empty file of ours, and only that one is replaced.
        os.close(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(path, final)
    else:
        os.unlink(path)
