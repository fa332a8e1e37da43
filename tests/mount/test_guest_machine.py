"""A machine's own view of its files, in the mount: volumes, `root/`, and what is explained."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from backpoint_repo.source.detect import open_image
from guest_disks import build_data_disk
from guest_trees.crash_image import crash_image, write_durably
from guest_trees.disks import make_image, mounted_image
from guest_trees.linux_machine import LinuxMachine, build_linux_machine, uuid_of
from guest_trees.walk import walk_folder
from mounted_repository import MountedRepository, run
from small_repository import NOON, back_up

MIB = 1 << 20


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> LinuxMachine:
    return build_linux_machine(tmp_path_factory.mktemp("machine") / "one")


@pytest.fixture(scope="module")
def linux_guest(shared_repository: MountedRepository, machine: LinuxMachine) -> Path:
    """`guest/` of that machine, mounted for all who only look at it."""
    return mounted_guest(shared_repository, *machine.disks)


def mounted_guest(repository: MountedRepository, *disks: Path, options: str = "") -> Path:
    """`guest/` of a new point, mounted."""
    add_point(repository, "vm", *disks)
    repository.mount(*options.split())
    return repository.newest("vm") / "guest"


def add_point(repository: MountedRepository, vm: str, *disks: Path, time: float = NOON) -> None:
    sources = [open_image(disk) for disk in disks]
    back_up(repository.repository, vm, *sources, time=time)
    for source in sources:
        source.close()


def test_every_volume_is_there_by_name(linux_guest: Path, machine: LinuxMachine) -> None:
    """Partitions by disk and number, logical volumes by group and name, as drivers have them."""
    guest = linux_guest
    assert sorted(os.listdir(guest)) == [
        "disk0-p1",
        "root",
        "root.WHY.txt",
        "vg0-home",
        "vg0-root",
    ]
    with mounted_image(machine.root, "ext4", read_only=True) as root:
        assert walk_folder(guest / "vg0-root") == walk_folder(root)
    with mounted_image(machine.home, "btrfs", read_only=True) as root:
        assert walk_folder(guest / "vg0-home") == walk_folder(root)


def test_root_is_what_the_guest_has_mounted(linux_guest: Path) -> None:
    """/boot and /home are other volumes, entered where the guest's fstab says."""
    root = linux_guest / "root"
    assert (root / "etc/hostname").read_text() == "linux\n"
    assert (root / "boot/vmlinuz").read_text() == "kernel"
    assert (root / "home/anna/letter.txt").read_text() == "dear all\n"
    assert os.listdir(root / "home") == ["anna"]
    assert os.readlink(root / "absolute link") == "/etc/hostname"
    assert sorted(os.listdir(root)) == sorted(
        ["absolute link", "bin", "boot", "etc", "home", "lost+found", "usr"]
    )
    assert run("find", f"{root}/bin/", "-type", "f") == f"{root}/bin/program\n"


def test_what_is_missing_from_root_is_explained(linux_guest: Path) -> None:
    """A network share and a volume that is gone are named; tmpfs is no loss."""
    why = (linux_guest / "root.WHY.txt").read_text()
    assert "nas:/export" in why
    assert "/srv" in why
    assert "tmpfs" not in why


def test_a_volume_tells_what_it_is(linux_guest: Path, machine: LinuxMachine) -> None:
    """By attributes that copying programs do not see."""
    volume = linux_guest / "disk0-p1"
    assert os.getxattr(volume, "user.backpoint.label") == b"boot"
    assert os.getxattr(volume, "user.backpoint.uuid").decode() == uuid_of(machine.boot)
    assert os.listxattr(volume) == []


def test_two_machines_with_one_group_name(
    checked_repository: MountedRepository, machine: LinuxMachine, tmp_path: Path
) -> None:
    """Each point has its own: the names of volume groups never meet."""
    other = build_linux_machine(tmp_path / "other", "other")
    add_point(checked_repository, "one", *machine.disks)
    add_point(checked_repository, "other", *other.disks)
    checked_repository.mount()
    for vm, name in (("one", "linux"), ("other", "other")):
        hostname = checked_repository.newest(vm) / "guest/root/etc/hostname"
        assert hostname.read_text() == f"{name}\n"


def test_a_missing_disk_is_explained(
    checked_repository: MountedRepository, machine: LinuxMachine
) -> None:
    """The volumes that need it are folders with the reason; the others are readable."""
    guest = mounted_guest(checked_repository, machine.disks[0])
    assert "vg0-root" in os.listdir(guest)
    assert os.listdir(guest / "vg0-root") == ["WHY.txt"]
    assert "physical volume" in (guest / "vg0-root/WHY.txt").read_text()
    assert (guest / "disk0-p1/vmlinuz").read_text() == "kernel"


def test_what_cannot_be_read_says_why(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """Encrypted, empty, unknown and destroyed disks are folders with a WHY.txt, and so is root."""
    encrypted, empty, unknown, damaged = (tmp_path / name for name in "eyud")
    encrypted.write_bytes(b"LUKS\xba\xbe\0\2" + bytes(MIB))
    empty.write_bytes(bytes(MIB))
    unknown.write_bytes(b"something else" * 100_000)
    make_image(damaged, "ext4", 16 * MIB)
    with damaged.open("r+b") as image:
        image.seek(4096)
        image.write(b"\xff" * 200_000)
    guest = mounted_guest(checked_repository, encrypted, empty, unknown, damaged)
    whys = {folder.name: (folder / "WHY.txt").read_text() for folder in guest.iterdir()}
    assert set(whys) == {"disk0", "disk1", "disk2", "disk3", "root"}
    assert "LUKS" in whys["disk0"]
    assert all(why.endswith(".\n") for why in whys.values())


def test_an_unreplayed_log_is_said_beside_the_volume(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """XFS's log is not replayed: the volume has an attribute and a WHY.txt beside it."""
    disk = tmp_path / "xfs"
    make_image(disk, "xfs", 320 * MIB)

    def change(at: Path) -> None:
        write_durably(at / "file", b"content")

    copy = crash_image(disk, "xfs", tmp_path / "copy", change)
    guest = mounted_guest(checked_repository, copy)
    assert "log" in (guest / "disk0.WHY.txt").read_text()
    assert b"log" in os.getxattr(guest / "disk0", "user.backpoint.recovery")


def test_a_journal_is_replayed(checked_repository: MountedRepository, tmp_path: Path) -> None:
    """What ext4 has only in its journal is seen, as a real mount would after recovery."""
    disk = tmp_path / "ext4"
    make_image(disk, "ext4", 64 * MIB)

    def change(at: Path) -> None:
        write_durably(at / "file", b"content")
        write_durably(at / "folder", b"no folder")

    copy = crash_image(disk, "ext4", tmp_path / "copy", change, ("commit=300",))
    guest = mounted_guest(checked_repository, copy)
    assert "disk0.WHY.txt" not in os.listdir(guest)
    with mounted_image(copy, "ext4", read_only=True) as unreplayed:
        assert not (unreplayed / "file").exists()
    assert (guest / "disk0/file").read_bytes() == b"content"
    ours = walk_folder(guest / "disk0")
    with mounted_image(copy, "ext4") as recovered:
        assert ours == walk_folder(recovered)


def test_killed_parsers_cost_nothing(
    linux_guest: Path, shared_repository: MountedRepository
) -> None:
    """They are started anew, and whoever reads never notices."""
    guest = linux_guest
    hostname = guest / "root/etc/hostname"
    assert hostname.read_text() == "linux\n"
    parsers = parsers_of(shared_repository.pid)
    assert parsers
    for pid in parsers:
        os.kill(pid, signal.SIGKILL)
    assert (guest / "disk0-p1/vmlinuz").read_text() == "kernel"
    assert hostname.read_text() == "linux\n"


def test_a_hanging_parser_holds_up_its_own_volume_only(
    linux_guest: Path, shared_repository: MountedRepository
) -> None:
    """While one does not answer, another volume is read; and its own is when it goes on."""
    guest = linux_guest
    os.listdir(guest)
    os.listdir(guest / "vg0-home")
    (hanging,) = [pid for pid in parsers_of(shared_repository.pid) if b"btrfs" in cmdline(pid)]
    os.kill(hanging, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        letter = pool.submit((guest / "vg0-home/@home/anna/letter.txt").read_text)
        assert (guest / "disk0-p1/vmlinuz").read_text() == "kernel"
        assert (guest / "vg0-root/etc/hostname").read_text() == "linux\n"
        assert not letter.done()
        os.kill(hanging, signal.SIGCONT)
        assert letter.result() == "dear all\n"


def test_parsers_end_with_the_mount(
    checked_repository: MountedRepository, machine: LinuxMachine
) -> None:
    """No process is left, and while they live they belong to nobody."""
    guest = mounted_guest(checked_repository, *machine.disks)
    os.listdir(guest)
    parsers = parsers_of(checked_repository.pid)
    assert len(parsers) == 3
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in parsers} == {65534}
    checked_repository.umount()
    assert not any(Path(f"/proc/{pid}").exists() for pid in parsers)


def test_looking_at_points_starts_no_parser(
    checked_repository: MountedRepository, machine: LinuxMachine
) -> None:
    """Nothing of a guest is touched before somebody looks into `guest/`."""
    guest = mounted_guest(checked_repository, *machine.disks)
    assert "guest" in os.listdir(guest.parent)
    assert guest.is_dir()
    assert parsers_of(checked_repository.pid) == []


def test_an_ordinary_user_restores_what_only_root_could_read(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """Whoever mounts for himself holds the keys: no mode of a guest keeps him out."""
    disk = tmp_path / "disk"
    build_data_disk(disk, 64 * MIB, seed=1, files_total_bytes=MIB)
    guest = mounted_guest(checked_repository, disk)
    modes = run("stat", "-c", "%a", guest / "disk0-p1/lost+found").strip()
    assert modes == "700"
    assert "default_permissions" not in run("findmnt", "-n", "-o", "OPTIONS", "--target", guest)


def test_others_see_what_the_guests_modes_allow(
    checked_repository: MountedRepository, tmp_path: Path, open_place: Path
) -> None:
    """Opened to the machine, the kernel judges by the guest's modes and owners."""
    disk = tmp_path / "disk"
    make_image(disk, "ext4", 16 * MIB)
    with mounted_image(disk, "ext4") as root:
        (root / "secret").write_text("no")
        (root / "secret").chmod(0o600)
        (root / "open").write_text("yes")
    repository = replace(checked_repository, place=open_place)
    guest = mounted_guest(repository, disk, options="--allow-others")
    for name, answer in (("open", "yes"), ("secret", "")):
        path = str(guest / "disk0" / name)
        command = ["setpriv", "--reuid=65534", "--clear-groups", "cat", path]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.stdout == answer, said
    repository.umount()


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def parsers_of(pid: int) -> list[int]:
    """Processes that a mount has started."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for found in children for child in found.read_text().split()]
