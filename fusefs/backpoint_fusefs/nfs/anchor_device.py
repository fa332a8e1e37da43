"""A small block device to mount on, only for its UUID: the fixed point of clients' file handles.

A FUSE mount has no identity of its own, so NFS servers know it by a device number that changes with
every mount. On a block device they take the UUID of the filesystem that blkid finds there. Decides
how the device comes and goes: it detaches by itself with the mount, however that ends.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from backpoint_repo.errors import UsageError

_SIZE: Final = 1 << 20
_TOOL_S: Final = 30.0


def make_anchor(image: Path, identity: uuid.UUID) -> None:
    """An empty ext2 in a file. Raises UsageError where mke2fs is missing."""
    image.unlink(missing_ok=True)
    fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, _SIZE)
    finally:
        os.close(fd)
    _tool("mke2fs", "-q", "-F", "-t", "ext2", "-U", str(identity), str(image), package="e2fsprogs")


@contextmanager
def attached(image: Path) -> Iterator[str]:
    """The block device's path, for the time in which it is mounted.

    It goes when the mount goes, or here where nothing was mounted on it. Raises UsageError.
    """
    device = _tool("losetup", "--find", "--show", "--", str(image), package="mount").strip()
    try:
        yield device
    finally:
        # While something is mounted on it this only tells the kernel to detach it at the end.
        with suppress(UsageError):
            _tool("losetup", "--detach", device, package="mount")


def clear_devices(image: Path) -> None:
    """Detach what a process that was killed left on this file."""
    with suppress(UsageError):
        for device in _tool("losetup", "-n", "-O", "NAME", "-j", str(image)).split():
            _tool("losetup", "--detach", device)


def _tool(*command: str, package: str = "mount") -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TOOL_S
        )
    except FileNotFoundError:
        raise UsageError(f"{command[0]} is missing: install the package {package}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{command[0]} does not end") from None
    if done.returncode:
        raise UsageError(f"{command[0]} failed, which needs root: {done.stderr.strip()}")
    return done.stdout
