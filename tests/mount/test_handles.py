"""File handles outlive a restart of the mount, of guests' files as well: no network client sees
ESTALE."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from backpoint_repo.source.detect import open_image
from file_handles import FileHandle, handle_of, open_handle
from guest_trees.disks import Kind, make_image, mounted_image
from guest_trees.linux_machine import build_linux_machine
from mounted_repository import MountedRepository
from small_repository import NOON, back_up


def add_point(repository: MountedRepository, vm: str, *disks: Path, time: float = NOON) -> None:
    sources = [open_image(disk) for disk in disks]
    back_up(repository.repository, vm, *sources, time=time)
    for source in sources:
        source.close()


def content_of(repository: MountedRepository, handle: FileHandle) -> bytes | list[str]:
    """What lies behind a handle now, which nobody has looked up."""
    opened = open_handle(repository.place, handle)
    try:
        status = os.fstat(opened)
        if os.path.isdir(f"/proc/self/fd/{opened}"):
            assert os.stat("..", dir_fd=opened).st_ino
            return sorted(os.listdir(opened))
        return os.pread(opened, status.st_size, 0)
    finally:
        os.close(opened)


def place_of(repository: MountedRepository, handle: FileHandle) -> str:
    """The path that the kernel gives a folder that it was told of by its handle alone."""
    opened = open_handle(repository.place, handle)
    try:
        return os.readlink(f"/proc/self/fd/{opened}")
    finally:
        os.close(opened)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A Linux machine's, with three more that other systems made."""
    folder = tmp_path_factory.mktemp("disks")
    others = [_nested(folder, "xfs", 320), _nested(folder, "ntfs", 16), _nested(folder, "exfat", 8)]
    return [*build_linux_machine(folder / "machine").disks, *others]


def _nested(folder: Path, kind: Kind, mib: int) -> Path:
    disk = folder / f"{kind}.raw"
    make_image(disk, kind, mib << 20)
    with mounted_image(disk, kind) as root:
        for number in range(20):
            (root / f"folder {number}/inner").mkdir(parents=True)
        (root / "folder 7/inner/file").write_bytes(kind.encode())
    return disk


def test_handles_outlive_the_mount(
    checked_repository: MountedRepository, disks: list[Path]
) -> None:
    """Of volumes, folders, files, and what is mounted in `root/`: by handle alone, in a new mount,
    and each folder knows the way up to the mount's top."""
    add_point(checked_repository, "vm", *disks)
    checked_repository.mount()
    point = checked_repository.newest("vm").resolve()
    guest, first = point / "guest", len(disks) - 3
    others = [guest / f"disk{first + number}/folder 7/inner" for number in range(3)]
    folders = [
        *(guest, guest / "vg0-root", guest / "vg0-root/usr/bin", guest / "root"),
        *(guest / "root/usr/bin", guest / "root/home", guest / "root/home/anna"),
        *(guest / "root/boot", guest / "vg0-home", guest / "disk0-p1", *others),
    ]
    files = [
        *(guest / "root/etc/hostname", guest / "root/home/anna/letter.txt"),
        *(guest / "root/boot/vmlinuz", guest / "vg0-root/etc/hostname", guest / "root.WHY.txt"),
        *(point / "point.json", point / "disk0.vmdk", *(other / "file" for other in others)),
    ]
    known = {path: handle_of(path) for path in (*folders, *files)}
    before = {path: content_of(checked_repository, known[path]) for path in known}
    numbers = {path: path.stat().st_ino for path in known}
    checked_repository.umount()
    checked_repository.mount()
    # Files first, deepest first: nothing above them has been looked at.
    for path in reversed(known):
        assert content_of(checked_repository, known[path]) == before[path], path
    checked_repository.umount()
    checked_repository.mount()
    for path in reversed(folders):
        assert place_of(checked_repository, known[path]) == str(path)
    assert {path: path.stat().st_ino for path in known} == numbers
    assert {path: handle_of(path) for path in known} == known


def test_a_handle_never_opens_another_file(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """What remembers the numbers is lost, or the number is another tree's now: stale, no more."""
    disk = tmp_path / "disk.raw"
    make_image(disk, "ext4", 16 << 20)
    with mounted_image(disk, "ext4") as root:
        (root / "file").write_bytes(b"content")
    add_point(checked_repository, "vm", disk)
    checked_repository.mount()
    file = checked_repository.newest("vm") / "guest/disk0/file"
    handle = handle_of(file)
    checked_repository.umount()
    [kept] = (checked_repository.state / "backpoint/handles").iterdir()
    text = kept.read_text()
    kept.unlink()
    checked_repository.mount()
    with pytest.raises(OSError, match="tale") as stale:
        content_of(checked_repository, handle)
    assert stale.value.errno == errno.ESTALE
    # Another tree of the same point has the number now. The mount goes on and sees it.
    kept.write_text(text.replace('"disk0", 0', '"disk0", 1'))
    with pytest.raises(OSError, match="tale"):
        content_of(checked_repository, handle)
    checked_repository.umount()
    kept.write_text(text)
    checked_repository.mount()
    assert content_of(checked_repository, handle) == b"content"
