"""Owner, mode, times, extended attributes and ACLs of a copied file, as the guest has them.

Decides what is kept by whom: owners by root only, and with them what gives rights to owners (setuid
and setgid bits, ACLs, `security.` and `trusted.` attributes). What cannot be kept is a shortfall,
never a failure. Raises OSError for what every filesystem can do.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from backpoint_fusefs.guest.copying.copy_report import CopyReport
from backpoint_fusefs.guest.filesystem import Stat

_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_RIGHTS: Final = (b"system.", b"security.", b"trusted.")
_SETS_ID: Final = stat.S_ISUID | stat.S_ISGID


class Target(NamedTuple):
    """A copied file: a descriptor of it, or a path of what cannot be opened. link: it is one."""

    place: int | bytes
    link: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Of calls that would follow a link otherwise."""
        return {"follow_symlinks": False} if self.link else {}


class AttributeKeeper:
    """owners: give files to their owners, where we may."""

    def __init__(self, report: CopyReport, *, owners: bool) -> None:
        self._report = report
        self._owners = owners
        self._root = os.geteuid() == 0

    def keep(self, target: Target, found: Stat, xattrs: Mapping[bytes, bytes], path: bytes) -> None:
        """path: for the report."""
        if self._owners and self._root:
            try:
                os.chown(target.place, found.uid, found.gid, **target.options)
            except OSError as error:
                self._report.shortfall("owners", path, _why(error))
        self._drop_inherited(target)
        for name, value in xattrs.items():
            if self._owners or not name.startswith(_RIGHTS):
                self._keep_xattr(target, name, value, path)
        if not target.link:
            self._keep_mode(target, found, path)
        os.utime(target.place, ns=(found.atime_ns, found.mtime_ns), **target.options)

    def _keep_mode(self, target: Target, found: Stat, path: bytes) -> None:
        mode = stat.S_IMODE(found.mode)
        if mode & _SETS_ID:
            now = os.stat(target.place)
            if not self._owners or (now.st_uid, now.st_gid) != (found.uid, found.gid):
                self._report.shortfall("setuid and setgid bits", path, "its owner is another")
                mode &= ~_SETS_ID
        # After the owner and the ACL: both change it.
        os.chmod(target.place, mode)

    def _drop_inherited(self, target: Target) -> None:
        """ACLs that come from where the copy lies."""
        with contextlib.suppress(OSError):  # a filesystem that knows none
            there = set(map(os.fsencode, os.listxattr(target.place, **target.options)))
            for acl in there.intersection(_ACLS):
                os.removexattr(target.place, acl, **target.options)

    def _keep_xattr(self, target: Target, name: bytes, value: bytes, path: bytes) -> None:
        try:
            os.setxattr(target.place, name, value, **target.options)
        except OSError as error:
            what = "ACLs" if name in _ACLS else "extended attributes"
            shown_name = name.decode("utf-8", "backslashreplace")
            self._report.shortfall(what, path, f"{shown_name}: {_why(error)}")


def _why(error: OSError) -> str:
    return error.strerror or str(error)
