"""File handles as network servers keep them: taken from a path, opened in a later mount."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HANDLE_MAX: Final = 128
_AT_FDCWD: Final = -100


class _Handle(ctypes.Structure):
    """struct file_handle."""

    _fields_ = (
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_ubyte * _HANDLE_MAX),
    )


_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class FileHandle:
    """kind: the type, as the kernel counts. content: opaque."""

    kind: int
    content: bytes


def handle_of(path: Path) -> FileHandle:
    """Of the file itself, also where it is a link. Raises OSError."""
    handle, mount = _Handle(handle_bytes=_HANDLE_MAX), ctypes.c_int()
    failed = _LIBC.name_to_handle_at(
        *(_AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(mount), 0)
    )
    _raise_if(failed != 0, path)
    return FileHandle(handle.handle_type, bytes(handle.f_handle[: handle.handle_bytes]))


def open_handle(mount_point: Path, handle: FileHandle, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file in what is mounted there now. Raises OSError."""
    asked = _Handle(len(handle.content), handle.kind)
    ctypes.memmove(asked.f_handle, handle.content, len(handle.content))
    mount = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        opened: int = _LIBC.open_by_handle_at(mount, ctypes.byref(asked), flags)
        _raise_if(opened < 0, mount_point)
    finally:
        os.close(mount)
    return opened


def _raise_if(failed: bool, path: Path) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
