"""Images with one filesystem and nothing around it: making them, and reaching their files.

Decides which driver serves a kind, what that driver can hold (`abilities_of`), and which mount
options read it without writing a byte. Knows nothing of what is kept inside.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from guest_disks.tool import run
from guest_trees.abilities import Abilities

Kind = Literal["ext2", "ext3", "ext4", "xfs", "btrfs", "ntfs", "exfat", "fat"]

_MKFS: dict[Kind, tuple[str, ...]] = {
    # Below 512 MB mke2fs takes blocks of 1 KiB unless told.
    "ext2": ("mke2fs", "-q", "-F", "-t", "ext2", "-b", "4096"),
    "ext3": ("mke2fs", "-q", "-F", "-t", "ext3", "-b", "4096"),
    "ext4": ("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ntfs": ("mkfs.ntfs", "-q", "-F", "-f", "-s", "512", "-p", "0"),
    "exfat": ("mkfs.exfat",),
    "fat": ("mkfs.fat",),
}
# What the kernel serves, by loop.
_KERNEL_READ: dict[Kind, str] = {
    "ext2": "ro",
    "ext3": "ro,noload",
    "ext4": "ro,noload",
    "xfs": "ro,norecovery,nouuid",
    "btrfs": "ro,rescue=nologreplay",
}
_KERNEL_WRITE: dict[Kind, str] = {
    "ext2": "rw,user_xattr,acl",
    "ext3": "rw",
    "ext4": "rw",
    "xfs": "rw,nouuid",
    "btrfs": "rw",
}
_FUSE: dict[Kind, str] = {"ntfs": "ntfs-3g", "exfat": "mount.exfat-fuse"}

_ABILITIES: dict[Kind, Abilities] = {
    # ext2 and ext3 map blocks one by one and cannot reserve them.
    "ext2": Abilities(unwritten=False),
    "ext3": Abilities(unwritten=False),
    "ext4": Abilities(),
    "xfs": Abilities(symlink_max=1023),
    "btrfs": Abilities(),
    "ntfs": Abilities(
        raw_names=False,
        names_utf16=True,
        owners=False,
        acls=False,
        unwritten=False,
        time_step_ns=100,
        many_links=500,
        many_entries=1_000,
    ),
    "exfat": Abilities(
        links=False,
        symlinks=False,
        devices=False,
        xattrs=False,
        acls=False,
        owners=False,
        raw_names=False,
        sparse=False,
        unwritten=False,
        long_times=False,
        dos_times=True,
        time_step_ns=10**9,
        case_sensitive=False,
        names_utf16=True,
        forbidden=bytes(range(32)) + b'"*/:<>?\\|',
        many_entries=1_000,
    ),
}


def make_image(path: Path, kind: Kind, size: int, options: Sequence[str] = ()) -> None:
    """Make `path` a sparse file of `size` bytes with an empty filesystem. Raises RuntimeError.

    `options` go to its mkfs. XFS needs 302 MiB, btrfs 110 MiB at least.
    """
    path.unlink(missing_ok=True)
    with path.open("xb") as image:
        image.truncate(size)
    run(*_MKFS[kind], *options, path)


def abilities_of(kind: Kind, block_size: int = 4096) -> Abilities:
    """What the driver of `kind` holds, on a filesystem made without further options; block_size:
    of ext2, ext3 and ext4, whose links and attributes must fit a block."""
    if block_size < 4096:
        return replace(_ABILITIES[kind], symlink_max=block_size - 1, xattr_space=block_size - 124)
    return _ABILITIES[kind]


@contextlib.contextmanager
def mounted_image(
    path: Path, kind: Kind, *, read_only: bool = False, options: Iterable[str] = ()
) -> Iterator[Path]:
    """The files of the filesystem in `path`, all of it, as a folder while the block runs.

    Read-only, nothing at all is written, not even a journal replay. `options` are added to the
    mount's. Raises RuntimeError with what the driver said.
    """
    folder = Path(tempfile.mkdtemp(prefix="m-", dir=path.parent))
    # Not a TemporaryDirectory: that would empty the filesystem if it could not be unmounted.
    try:
        with _attached(path, read_only=read_only) as device:
            if kind in _FUSE:
                words = ["ro" if read_only else "rw", *options]
                mount = _fuse_mount(_FUSE[kind], device, folder, ",".join(words))
            else:
                words = [(_KERNEL_READ if read_only else _KERNEL_WRITE)[kind], *options]
                mount = _kernel_mount(kind, device, folder, ",".join(words))
            with mount:
                yield folder
    finally:
        folder.rmdir()


@contextlib.contextmanager
def _attached(path: Path, *, read_only: bool) -> Iterator[str]:
    flags = ["--read-only"] if read_only else []
    device = run("losetup", "--find", "--show", *flags, path).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def _kernel_mount(kind: Kind, device: str, folder: Path, options: str) -> Iterator[None]:
    run("mount", "-t", kind, "-o", options, device, folder)
    try:
        yield
    finally:
        run("umount", folder)


@contextlib.contextmanager
def _fuse_mount(driver: str, device: str, folder: Path, options: str) -> Iterator[None]:
    reader, writer = os.pipe()
    command = [driver, "-o", options, device, str(folder)]
    try:
        done = subprocess.run(
            command, pass_fds=[writer], capture_output=True, text=True, check=False
        )
    finally:
        os.close(writer)
    with open(reader, "rb") as ended:
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        try:
            yield
        finally:
            run("umount", folder)
            # umount does not wait for the driver to write what it has: it has, when it has ended
            # and so let go of our pipe.
            ended.read()


def fill_fat(image: Path, files: Mapping[str, bytes], removed: Iterable[str] = ()) -> None:
    """Write files by mtools, by their path in the FAT filesystem; then delete the `removed` ones.

    A path that ends in `/` is an empty folder. All get the time 2024-02-29 12:34:56 UTC.
    """
    environment = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    with tempfile.TemporaryDirectory(prefix="fat-") as name:
        top = Path(name)
        for path, content in files.items():
            target = top / path
            if path.endswith("/"):
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for found in top.rglob("*"):
            os.utime(found, (1_709_210_096, 1_709_210_096))
        sources = sorted(top.iterdir())
        run("mcopy", "-Q", "-s", "-m", "-i", image, *sources, "::", environment=environment)
    for path in removed:
        run("mdel", "-i", image, f"::{path}", environment=environment)


def without_big_files(abilities: Abilities) -> Abilities:
    """The same with no 5 GiB file and few names: for tests where the driver or we are slow."""
    return replace(abilities, big_sparse_size=0, many_links=200, many_entries=300)
