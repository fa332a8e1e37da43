"""The lines of an /etc/fstab: what the guest mounts where, by its own word.

Decides which lines are about storage at all, and what a path in it is. Knows no volumes: what a
line's source is, `storage_name.py` finds out. The file is the guest's, so it is hostile. Format:
fstab(5), and util-linux's libmount where that leaves something open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SIZE_MAX: Final = 1 << 20
"""Bytes of a file that is read at all."""
LINES_MAX: Final = 1000
"""Lines with something in them; real files have a few dozen at most."""

_PATH_MAX: Final = 4095
_NAME_MAX: Final = 255
_QUOTED_MAX: Final = 120
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_BLANKS: Final = re.compile(rb"[ \t]+")
_FIELDS: Final = 4
_REMOTE: Final = re.compile("//|[^/=]*:/")
"""host:/path, //server/share, scheme://...; not a LABEL= with such characters in it."""
_NOT_STORAGE: Final = frozenset(
    (
        *("swap", "none", "ignore", "autofs", "proc", "sysfs", "tmpfs", "ramfs", "devtmpfs"),
        *("devpts", "mqueue", "hugetlbfs", "cgroup", "cgroup2", "debugfs", "tracefs", "pstore"),
        *("securityfs", "efivarfs", "bpf", "configfs", "fusectl", "binfmt_misc", "selinuxfs"),
        *("nfsd", "rpc_pipefs", "usbfs"),
    )
)
"""Types that keep nothing on a disk (or nothing that is files): not worth a word."""
_NETWORK: Final = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "smb", "afs", "ceph", "fuse.ceph", "glusterfs"),
        *("fuse.glusterfs", "lustre", "beegfs", "gpfs", "gfs2", "ocfs2", "sshfs", "fuse.sshfs"),
        *("davfs", "davfs2", "fuse.davfs2", "s3fs", "fuse.s3fs", "rclone", "fuse.rclone"),
        *("9p", "virtiofs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse"),
    )
)


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """mount_point: absolute, normalised. source, kind (the type) and options: escapes resolved,
    bytes that are not UTF-8 as surrogates. named: how a sentence calls the line."""

    named: str
    source: str
    mount_point: bytes
    kind: str
    options: tuple[str, ...]

    def option(self, name: str) -> str | None:
        """The value of the last such option: `subvol` of `subvol=/@`."""
        prefix = name + "="
        values = [option[len(prefix) :] for option in self.options if option.startswith(prefix)]
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class Fstab:
    """entries: the lines about storage, in their order. notes: a sentence on each other line that
    somebody could miss in the result."""

    entries: tuple[FstabEntry, ...]
    notes: tuple[str, ...]


class _Passed(Exception):
    """A line that becomes no entry; the message, if any, is its note."""


def parse_fstab(content: bytes) -> Fstab:
    """Of any bytes at all; never raises."""
    entries: list[FstabEntry] = []
    notes: list[str] = []
    if len(content) > SIZE_MAX:
        # The last line may be cut in two, and half a line says something else.
        content = content[: content.rfind(b"\n", 0, SIZE_MAX) + 1]
        notes.append(f"/etc/fstab is larger than {SIZE_MAX} bytes; the rest of it is ignored.")
    lines = 0
    for number, line in enumerate(content.split(b"\n"), 1):
        stripped = line.removesuffix(b"\r").strip(b" \t")
        if not stripped or stripped.startswith(b"#"):
            continue
        lines += 1
        if lines > LINES_MAX:
            notes.append(f"/etc/fstab has more than {LINES_MAX} lines; the rest are ignored.")
            break
        try:
            entries.append(_entry(number, stripped))
        except _Passed as passed:
            notes += [f"{_named(number, stripped)} {reason}." for reason in passed.args]
    return Fstab(tuple(entries), tuple(notes))


def unescape(field: bytes) -> bytes:
    """`\\040` is a space. As libmount does, `\\777` is cut to a byte."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field)


def _entry(number: int, line: bytes) -> FstabEntry:
    fields = [unescape(field) for field in _BLANKS.split(line, _FIELDS)[:_FIELDS]]
    if len(fields) < _FIELDS - 1:
        raise _Passed("has too few fields, so mount ignores it")
    source, target = _text(fields[0]), fields[1]
    kind = _text(fields[2])
    options = tuple(_text(fields[3]).split(",")) if len(fields) == _FIELDS else ()
    _pass_over_others(kind, source, options)
    if target in (b"none", b"swap"):
        raise _Passed
    return FstabEntry(_named(number, line), source, _mount_point(target), kind, options)


def _pass_over_others(kind: str, source: str, options: tuple[str, ...]) -> None:
    if kind in _NOT_STORAGE and not {"bind", "rbind"}.intersection(options):
        raise _Passed
    if kind in _NETWORK or _REMOTE.match(source):
        raise _Passed("is on the network, so it is not in this backup")
    if kind == "zfs":
        raise _Passed("is on ZFS, which cannot be read")
    if {"bind", "rbind"}.intersection(options):
        raise _Passed("shows a folder of the guest a second time (bind), which is left out")


def _mount_point(path: bytes) -> bytes:
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if not path.startswith(b"/") or b".." in names or b"\0" in path:
        raise _Passed("has a mount point that is no plain absolute path")
    if len(path) > _PATH_MAX or any(len(name) > _NAME_MAX for name in names):
        raise _Passed("has a mount point longer than a path can be")
    return b"/" + b"/".join(names)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")


def _named(number: int, line: bytes) -> str:
    """Without control characters, which would do things to the terminal of whoever reads it."""
    text = line[:_QUOTED_MAX].decode("utf-8", "backslashreplace").replace("\t", " ")
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    more = "..." if len(line) > _QUOTED_MAX else ""
    return f"/etc/fstab line {number} ({shown}{more})"
