"""An NFS client in this process: libnfs, which speaks versions 3 and 4 without the kernel.

Its tools cannot write over version 4 (they ask for a file that they may not write), rename or
remove; its library can.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from typing import Final

_POINTER: Final = ctypes.c_void_p
_PIECE: Final = 2 << 10
"""libnfs 4 cannot encode larger writes over version 4."""


class _Url(ctypes.Structure):
    _fields_ = (
        ("server", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("file", ctypes.c_char_p),
    )


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libnfs.so.13")
    library.nfs_init_context.restype = _POINTER
    library.nfs_get_error.restype = ctypes.c_char_p
    library.nfs_parse_url_dir.restype = ctypes.POINTER(_Url)
    size = ctypes.c_uint64
    library.nfs_pwrite.argtypes = [_POINTER, _POINTER, size, size, ctypes.c_char_p]
    library.nfs_pread.argtypes = [_POINTER, _POINTER, size, size, ctypes.c_char_p]
    return library


class NfsClient:
    """Paths are below what is exported. Raises OSError, with libnfs' words."""

    def __init__(self, url: str) -> None:
        self._library = _library()
        self._context = _POINTER(self._library.nfs_init_context())
        parsed = self._library.nfs_parse_url_dir(self._context, url.encode())
        place = parsed.contents
        self._checked(self._library.nfs_mount(self._context, place.server, place.path))
        self._library.nfs_destroy_url(parsed)

    def __enter__(self) -> NfsClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.nfs_destroy_context(self._context)

    @contextlib.contextmanager
    def opened(self, path: str, flags: int = os.O_RDWR) -> Iterator[NfsFile]:
        file = _POINTER()
        name, mode = path.encode(), 0o640
        self._checked(self._library.nfs_open2(self._context, name, flags, mode, ctypes.byref(file)))
        try:
            yield NfsFile(self, file)
        finally:
            self._library.nfs_close(self._context, file)

    def rename(self, path: str, new_path: str) -> None:
        self._checked(self._library.nfs_rename(self._context, path.encode(), new_path.encode()))

    def unlink(self, path: str) -> None:
        self._checked(self._library.nfs_unlink(self._context, path.encode()))

    def mkdir(self, path: str) -> None:
        self._checked(self._library.nfs_mkdir(self._context, path.encode()))

    def rmdir(self, path: str) -> None:
        self._checked(self._library.nfs_rmdir(self._context, path.encode()))

    def _checked(self, result: int) -> int:
        if result < 0:
            said = self._library.nfs_get_error(self._context) or b""
            raise OSError(-result, said.decode(errors="replace"))
        return result


class NfsFile:
    """An open file."""

    def __init__(self, client: NfsClient, file: ctypes.c_void_p) -> None:
        self._client = client
        self._file = file

    def write(self, offset: int, content: bytes) -> None:
        library, context = self._client._library, self._client._context
        for at in range(0, len(content), _PIECE):
            piece = content[at : at + _PIECE]
            done = library.nfs_pwrite(context, self._file, offset + at, len(piece), piece)
            assert self._client._checked(done) == len(piece)

    def read(self, offset: int, length: int) -> bytes:
        library, context = self._client._library, self._client._context
        buffer = ctypes.create_string_buffer(length)
        done = library.nfs_pread(context, self._file, offset, length, buffer)
        return buffer.raw[: self._client._checked(done)]

    def resize(self, size: int) -> None:
        library, context = self._client._library, self._client._context
        self._client._checked(library.nfs_ftruncate(context, self._file, ctypes.c_uint64(size)))

    def sync(self) -> None:
        """NFSv3's and NFSv4's COMMIT."""
        library, context = self._client._library, self._client._context
        self._client._checked(library.nfs_fsync(context, self._file))
