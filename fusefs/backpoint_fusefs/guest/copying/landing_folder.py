"""A folder that guest files are copied into, held open.

Decides that every name is looked up in a folder that is open already, one name at a time, and that
no symbolic link is ever followed: what a guest's link points to is not written to, whatever the
order of its names. A file has a hidden random name until it is whole. Raises OSError, and
UsageError where a name is taken.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Final

from backpoint_repo.errors import UsageError

_PREFIX: Final = b".backpoint-cp-"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Filesystems without hard links: FAT, exFAT, some network mounts.
_CANNOT_LINK: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LandingFolder:
    """descriptor: it is closed by `close`. path: names below the first folder. made: it is ours."""

    def __init__(self, descriptor: int, path: tuple[bytes, ...] = (), *, made: bool) -> None:
        self.descriptor = descriptor
        self.path = path
        self.made = made

    def enter(self, name: bytes) -> LandingFolder:
        """The folder of this name, made (for its owner only) where it is not there."""
        made = True
        try:
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        except FileExistsError:
            made = False
        try:
            opened = os.open(name, _FOLDER, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise UsageError("is there already, and is no folder") from None
            raise
        return LandingFolder(opened, (*self.path, name), made=made)

    def __enter__(self) -> LandingFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.descriptor)

    def descend(self, names: tuple[bytes, ...]) -> LandingFolder:
        """A folder some levels below, which must be there."""
        opened = os.open(b".", _FOLDER, dir_fd=self.descriptor)
        for name in names:
            try:
                below = os.open(name, _FOLDER, dir_fd=opened)
            finally:
                os.close(opened)
            opened = below
        return LandingFolder(opened, (*self.path, *names), made=False)

    def refuse_taken(self, name: bytes, *, force: bool) -> None:
        """Raise UsageError where the name has something that a file must not replace."""
        try:
            found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise UsageError("is there already, as a folder")
        if not force:
            raise UsageError("is there already (--force replaces files)")

    def place(self, name: bytes) -> bytes:
        """A path for calls that take no descriptor of a folder."""
        return b"/proc/self/fd/%d/%s" % (self.descriptor, name)

    def land(self, name: bytes, make: Callable[[bytes], None], *, force: bool) -> None:
        """Make something, under the hidden name that `make` gets, and give it its name then."""
        self.refuse_taken(name, force=force)
        hidden = _PREFIX + secrets.token_hex(8).encode()
        try:
            make(hidden)
            self._publish(hidden, name, force=force)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(hidden, dir_fd=self.descriptor)

    @contextlib.contextmanager
    def created(self, name: bytes) -> Iterator[int]:
        """A new empty file, open for writing while the block runs."""
        descriptor = os.open(name, _FILE, 0o600, dir_fd=self.descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def held(self, name: bytes) -> Iterator[bytes]:
        """A path of something that should not be opened (a device), which stays that very thing
        whatever happens to its name."""
        descriptor = os.open(name, _HANDLE, dir_fd=self.descriptor)
        try:
            yield b"/proc/self/fd/%d" % descriptor
        finally:
            os.close(descriptor)

    def _publish(self, hidden: bytes, name: bytes, *, force: bool) -> None:
        if force:
            # Does nothing at all where both are one file; the hidden name is removed anyway.
            os.rename(hidden, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            return
        try:
            link(self, hidden, self, name)
        except FileExistsError:
            raise UsageError("is there already (--force replaces files)") from None
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            self.refuse_taken(name, force=False)
            os.rename(hidden, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)


def link(source: LandingFolder, name: bytes, folder: LandingFolder, new: bytes) -> None:
    """A second name for a file; of a symbolic link, for the link itself."""
    os.link(
        name,
        new,
        src_dir_fd=source.descriptor,
        dst_dir_fd=folder.descriptor,
        follow_symlinks=False,
    )
