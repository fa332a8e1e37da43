"""A tree of files as a comparable record: names, stat, links, xattrs, content.

`walk_folder` looks at a mounted tree through the kernel, `walk_parser` at a filesystem through its
parser; on the same disk both must say the same. Decides what counts as the same.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

from blake3 import blake3

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    FileId,
    GuestFilesystem,
    Stat,
    VolumeImage,
    check_extents,
)

_PIECE = 1 << 20
_READ_TWICE_MAX = 64 << 20
_LINKS_LISTED_MAX = 20
_ZEROS = bytes(_PIECE)


@dataclass(frozen=True)
class Seen:
    """One file. links: all paths of the same file below the root, where there are several; of very
    many the first, their number and a hash.

    content: a hash of a regular file's bytes, or a link's target.
    """

    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int
    content: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: tuple[bytes, ...] = ()


Tree = dict[bytes, Seen]
"""Path from the root (b'' is the root itself) -> what is there."""


def walk_folder(root: Path) -> Tree:
    """A mounted tree as programs see it; other mounts below it are entered."""
    seen: dict[bytes, tuple[Seen, tuple[int, int]]] = {}
    top = os.fsencode(root)
    for path in _paths(top):
        found = os.lstat(path)
        key = (found.st_dev, found.st_ino)
        seen[path[len(top) :].lstrip(b"/")] = (_of_lstat(path, found), key)
    return _with_links(seen)


def walk_parser(filesystem: GuestFilesystem, image: VolumeImage) -> Tree:
    """What a parser shows, read the way the mount reads it: mapped bytes from the image, decoded
    ones through the parser; files up to 64 MiB also wholly through the parser, which must agree."""
    seen: dict[bytes, tuple[Seen, tuple[int, int]]] = {}
    waiting = [(b"", filesystem.root)]
    while waiting:
        path, file = waiting.pop()
        found = filesystem.stat(file)
        seen[path] = (_of_stat(filesystem, image, found), found.file)
        if stat.S_ISDIR(found.mode):
            children = list(filesystem.entries(file))
            names = [child.name for child in children]
            assert len(set(names)) == len(names), f"a name twice in {path!r}"
            batch = filesystem.stats([child.file for child in children])
            assert batch == [filesystem.stat(child.file) for child in children]
            prefix = path + b"/" if path else b""
            waiting += [(prefix + child.name, child.file) for child in children]
    return _with_links(seen)


def read_mapped(filesystem: GuestFilesystem, image: VolumeImage, found: Stat) -> Iterator[bytes]:
    """A regular file's bytes, piece by piece, by its extents."""
    for extent in check_extents(filesystem.extents(found.file), found.size, image.size):
        for at in range(0, extent.length, _PIECE):
            length = min(_PIECE, extent.length - at)
            if extent.at == HOLE:
                yield bytes(length)
            elif extent.at == DECODED:
                yield filesystem.read(found.file, extent.offset + at, length)
            else:
                yield image.read(extent.at + at, length)


def without_times(tree: Tree) -> Tree:
    """For drivers that keep no (or other) times of access and change."""
    return {path: replace(seen, atime_ns=0, ctime_ns=0) for path, seen in tree.items()}


def _paths(top: bytes) -> Iterator[bytes]:
    """Each folder before it is read, as reading may change its times. An unreadable one raises."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        yield path
        if stat.S_ISDIR(os.lstat(path).st_mode):
            waiting += [os.path.join(path, name) for name in os.listdir(path)]


def _hash_file(path: bytes) -> bytes:
    digest = blake3()
    end = 0
    with open(path, "rb", buffering=0) as file:
        for start, stop in _worth_reading(file):
            for at in range(end, start, _PIECE):
                digest.update(_ZEROS[: start - at])
            file.seek(start)
            end = start
            while end < stop and (piece := file.read(min(_PIECE, stop - end))):
                digest.update(piece)
                end += len(piece)
                if end > _READ_TWICE_MAX:
                    # 4 s instead of 15 for 5 GiB by ntfs-3g: the same memory again, not new one.
                    os.posix_fadvise(file.fileno(), 0, end, os.POSIX_FADV_DONTNEED)
    return digest.digest()


def _worth_reading(file: FileIO) -> Iterator[tuple[int, int]]:
    """All of a file but the inside of large holes: to read 5 GiB of hole takes the kernel 13 s.

    The last stretch goes on for ever, whatever the file's size is said to be.
    """
    size = os.fstat(file.fileno()).st_size
    if size <= _READ_TWICE_MAX:
        yield 0, sys.maxsize
        return
    start = 0
    while (data := _next_data(file, start)) is not None:
        hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
        # A MiB of the hole on each side is read.
        stop = min(hole + _PIECE, size)
        yield max(start, data - _PIECE), stop
        start = stop
    yield max(start, size - _PIECE), sys.maxsize


def _next_data(file: FileIO, start: int) -> int | None:
    try:
        return os.lseek(file.fileno(), start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _of_lstat(path: bytes, found: os.stat_result) -> Seen:
    content = b""
    if stat.S_ISLNK(found.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        content = _hash_file(path)
    return Seen(
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        # How large a folder is, every filesystem decides for itself.
        0 if stat.S_ISDIR(found.st_mode) else found.st_size,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_rdev,
        content,
        _xattrs_of(path),
    )


def _xattrs_of(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    except OSError as error:
        # The driver of exFAT knows no such thing.
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)


def _of_stat(filesystem: GuestFilesystem, image: VolumeImage, found: Stat) -> Seen:
    content = b""
    if stat.S_ISLNK(found.mode):
        content = filesystem.readlink(found.file)
    elif stat.S_ISREG(found.mode):
        mapped, parsed = blake3(), blake3()
        for piece in read_mapped(filesystem, image, found):
            mapped.update(piece)
        content = mapped.digest()
        if found.size <= _READ_TWICE_MAX:
            for at in range(0, found.size, _PIECE):
                piece = filesystem.read(found.file, at, _PIECE)
                assert len(piece) == min(_PIECE, found.size - at)
                parsed.update(piece)
            assert parsed.digest() == content, f"two contents of {found}"
    return Seen(
        found.mode,
        found.nlink,
        found.uid,
        found.gid,
        0 if stat.S_ISDIR(found.mode) else found.size,
        found.atime_ns,
        found.mtime_ns,
        found.ctime_ns,
        found.rdev,
        content,
        tuple(sorted(filesystem.xattrs(found.file).items())),
    )


def _with_links(seen: dict[bytes, tuple[Seen, tuple[int, int] | FileId]]) -> Tree:
    paths: dict[tuple[int, int] | FileId, list[bytes]] = {}
    for path, (_, key) in seen.items():
        paths.setdefault(key, []).append(path)
    links = {key: _links(sorted(same)) for key, same in paths.items()}
    return {path: replace(one, links=links[key]) for path, (one, key) in seen.items()}


def _links(paths: list[bytes]) -> tuple[bytes, ...]:
    if len(paths) <= _LINKS_LISTED_MAX:
        return tuple(paths) if len(paths) > 1 else ()
    # To compare 10,000 lists of 10,000 paths takes half a minute.
    return (paths[0], b"and %d more" % (len(paths) - 1), blake3(b"\0".join(paths)).digest())
