"""One partition in one disk image: writing the table, making the filesystem, reaching its files.

Decides that the only partition begins at 1 MiB and fills the disk, and which mount options read a
filesystem without writing to it. Knows nothing of what is kept inside.
"""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from guest_disks.fat_tree import fat_files
from guest_disks.tool import run

Filesystem = Literal["ext4", "xfs", "ntfs", "fat"]
PartitionTable = Literal["gpt", "dos"]

PARTITION_OFFSET = 1 << 20
# A GPT repeats itself in the last 33 sectors; a whole MiB keeps the partition's end aligned.
_TAIL = 1 << 20
_SECTOR = 512

_GPT_TYPES: dict[Filesystem, str] = {
    "ext4": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "xfs": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "ntfs": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
    "fat": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
}
_DOS_TYPES: dict[Filesystem, str] = {"ext4": "83", "xfs": "83", "ntfs": "7", "fat": "c"}

_BLKID_NAMES: dict[str, Filesystem] = {
    "ext4": "ext4",
    "xfs": "xfs",
    "ntfs": "ntfs",
    "vfat": "fat",
}
# FAT is missing here: fat_tree.py serves it.
_MOUNT_TYPES: dict[Filesystem, str] = {"ext4": "ext4", "xfs": "xfs", "ntfs": "ntfs-3g"}
_WRITE_OPTIONS: dict[Filesystem, str] = {
    "ext4": "rw",
    "xfs": "rw,nouuid",
    # streams_interface keeps `:` out of plain names; without it a name could open a stream.
    "ntfs": "rw,streams_interface=none",
}
# A journal cannot be replayed into a read-only image, and a copy has the UUID of its original.
_READ_OPTIONS: dict[Filesystem, str] = {
    "ext4": "ro,noload",
    "xfs": "ro,norecovery,nouuid",
    "ntfs": "ro",
}


def partition_length(size: int) -> int:
    """Bytes of the partition in a disk of `size` bytes. Raises ValueError if it is too small."""
    length = (size - PARTITION_OFFSET - _TAIL) // _TAIL * _TAIL
    if length < 1 << 20:
        raise ValueError(f"a disk of {size} bytes has no room for a partition")
    return length


def write_table(
    path: Path,
    size: int,
    filesystem: Filesystem,
    table: PartitionTable,
    *,
    identity: int,
    bootable: bool = False,
) -> None:
    """Make `path` a sparse disk of `size` bytes with a partition table and nothing else.

    `identity` decides the disk's and the partition's UUID (or MBR signature).
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as disk:
        disk.truncate(size)
    start, sectors = PARTITION_OFFSET // _SECTOR, partition_length(size) // _SECTOR
    if table == "gpt":
        head = f"label: gpt\nlabel-id: {stable_uuid(identity, 'disk')}\n"
        row = f"type={_GPT_TYPES[filesystem]}, uuid={stable_uuid(identity, 'partition')}"
    else:
        head = f"label: dos\nlabel-id: 0x{identity & 0xFFFFFFFF or 1:08x}\n"
        row = f"type={_DOS_TYPES[filesystem]}" + (", bootable" if bootable else "")
    run("sfdisk", "-q", path, text=f"{head}start={start}, size={sectors}, {row}\n")


def stable_uuid(identity: int, what: str) -> uuid.UUID:
    """The UUID that `identity` gives to `what`: the same in every run."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"guest disk {identity} {what}")


def make_filesystem(
    path: Path, filesystem: Filesystem, *, identity: int, label: str, options: Sequence[str] = ()
) -> None:
    """Make an empty filesystem in the partition of `path`. Raises RuntimeError if it cannot.

    `options` are passed on to the mkfs of that filesystem.
    """
    name = str(stable_uuid(identity, "filesystem"))
    commands: dict[Filesystem, tuple[str, ...]] = {
        "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-U", name, "-L", label),
        "xfs": ("mkfs.xfs", "-q", "-f", "-K", "-m", f"uuid={name}", "-L", label),
        # mkfs.ntfs asks the kernel where the partition begins, and a loop device cannot tell.
        "ntfs": ("mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "2048", "-L", label),
        "fat": ("mkfs.vfat", "-F", "32", "-i", name[:8], "-n", label.upper()),
    }
    with attached(path) as device:
        run(*commands[filesystem], *options, device)


@contextlib.contextmanager
def attached(path: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The partition of `path` as a loop device while the block runs. Raises RuntimeError."""
    length = partition_length(path.stat().st_size)
    command = ["losetup", "--find", "--show", f"--offset={PARTITION_OFFSET}"]
    command += [f"--sizelimit={length}", *(["--read-only"] if read_only else [])]
    device = Path(run(*command, path).strip())
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(path: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The files of the filesystem in `path` as a folder while the block runs.

    Read-only, nothing at all is written, not even a journal replay. Raises RuntimeError.
    """
    kind = filesystem_of(path)
    with (
        tempfile.TemporaryDirectory(prefix="guest-") as name,
        attached(path, read_only=read_only) as device,
    ):
        folder = Path(name)
        if kind == "fat":
            with fat_files(device, folder, read_only=read_only):
                yield folder
            return
        options = (_READ_OPTIONS if read_only else _WRITE_OPTIONS)[kind]
        run("mount", "-t", _MOUNT_TYPES[kind], "-o", options, device, folder)
        try:
            yield folder
        finally:
            run("umount", folder)


def filesystem_of(path: Path) -> Filesystem:
    """What the partition of `path` holds. Raises RuntimeError if it is none of ours."""
    probe = f"--offset={PARTITION_OFFSET}"
    found = run("blkid", "--probe", probe, "--match-tag=TYPE", "--output=value", path).strip()
    if found not in _BLKID_NAMES:
        raise RuntimeError(f"{path} holds a filesystem nobody asked for: {found!r}")
    return _BLKID_NAMES[found]
