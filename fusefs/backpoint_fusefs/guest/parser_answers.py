"""What a parser process answers, checked: nothing is believed that no honest one would say.

Decides what a file's numbers and names may be at all; what is of another shape is damage.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged, GuestError, Stat
from backpoint_fusefs.guest.worker.frames import STAT

INO_BITS: Final = 39
"""Bits of a file's number that the mount has room for."""
_INO_END: Final = 1 << INO_BITS
_TREE_END: Final = 1 << 63
_NAME_MAX: Final = 1024
"""HFS+ and NTFS count 255 characters, of up to 4 bytes each."""
_DOTS: Final = (b".", b"..")
_SECONDS: Final = range(-(2**62), 2**62)
"""Since 1970: the kernel has 64 bits for them, and nobody needs the last ones."""
_NOWHERE: Final = FileId(0, _INO_END - 1)
"""For entries whose file has an impossible number: nothing is there."""


class Line(NamedTuple):
    """An entry of a folder. found: its stat; None where that cannot be read."""

    name: bytes
    file: FileId
    found: Stat | None


def read_stat(answer: Any) -> Stat:
    """Times may come as seconds and nanoseconds."""
    try:
        STAT.pack(*answer)
        made = Stat._make(answer)
    except (struct.error, TypeError):
        made = _with_long_times(answer)
    return _possible(made)


def read_line(answer: Any) -> Line | None:
    """A name with a packed Stat; or with which file it is, and its stat as a message has it.

    None for a name that no kernel would take.
    """
    # Not `match`, here and below: it takes twice as long, on every entry of every folder.
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise nonsense("page")
    name, body = answer
    if not isinstance(name, bytes):
        raise nonsense("page")
    if not 0 < len(name) <= _NAME_MAX or b"/" in name or b"\0" in name or name in _DOTS:
        return None
    try:
        if isinstance(body, bytes) and len(body) == STAT.size:
            found = _possible(Stat._make(STAT.unpack(body)))
            return Line(name, FileId(found.tree, found.ino), found)
        return _odd_line(name, body)
    except GuestDamaged:
        # Shown, because it is there; whoever looks at it gets an error.
        return Line(name, _NOWHERE, None)


def _odd_line(name: bytes, body: Any) -> Line:
    if not isinstance(body, tuple) or len(body) != 2:
        raise nonsense("page")
    file, found = body
    return Line(name, read_file_id(file), None if found is None else read_stat(found))


def _possible(made: Stat) -> Stat:
    if not 0 < made.ino < _INO_END or made.tree < 0 or made.size < 0 or made.allocated < 0:
        raise GuestDamaged(f"the file {made.ino} has impossible numbers")
    return made


def read_file_id(answer: Any) -> FileId:
    """Tree and number."""
    if isinstance(answer, tuple) and len(answer) == len(FileId._fields):
        tree, ino = answer
        numbers = isinstance(tree, int) and isinstance(ino, int)
        if numbers and 0 <= tree < _TREE_END and 0 < ino < _INO_END:
            return FileId(tree, ino)
    raise nonsense("file")


def read_xattrs(answer: Any) -> dict[bytes, bytes]:
    """Without those whose names no kernel would take."""
    if not isinstance(answer, Mapping):
        raise nonsense("xattrs")
    if not all(isinstance(part, bytes) for pair in answer.items() for part in pair):
        raise nonsense("xattrs")
    return {name: value for name, value in answer.items() if b"\0" not in name}


def nonsense(about: str) -> GuestError:
    """An answer to this request was of the wrong shape."""
    return GuestDamaged(f"its parser said something impossible about {about!r}")


def _with_long_times(answer: Any) -> Stat:
    if not isinstance(answer, tuple) or len(answer) != len(Stat._fields):
        raise nonsense("stat")
    sent = Stat._make(answer)
    accessed, modified, changed = map(_time, (sent.atime_ns, sent.mtime_ns, sent.ctime_ns))
    try:
        STAT.pack(*sent._replace(atime_ns=0, mtime_ns=0, ctime_ns=0))
    except struct.error as error:
        raise GuestDamaged(f"a file has impossible numbers: {error}") from error
    return sent._replace(atime_ns=accessed, mtime_ns=modified, ctime_ns=changed)


def _time(sent: Any) -> int:
    """Nanoseconds; from seconds and nanoseconds where they are too many for a message."""
    match sent:
        case int(moment):
            return moment
        case (int(seconds), int(rest)) if seconds in _SECONDS and 0 <= rest < 10**9:
            return seconds * 10**9 + rest
        case _:
            raise GuestDamaged("a file has an impossible time")
