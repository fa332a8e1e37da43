"""Plans of the guest's own view, from what its volumes hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.filesystem import FileId, GuestDamaged
from backpoint_fusefs.guest.root_view.choose import plan_root
from backpoint_fusefs.guest.root_view.plan import NOTES_MAX, Mount, RootPlan
from backpoint_fusefs.guest.volume import Piece, Volume

Tree = dict[bytes, bytes]
"""Path -> content; folders are there because something is in them."""


@dataclass
class Files:
    """What the volumes hold, in dictionaries. trees: by volume; of btrfs, subvolumes by volume."""

    trees: dict[str, Tree] = field(default_factory=dict)
    btrfs: dict[str, dict[bytes, Tree]] = field(default_factory=dict)
    default: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def exists(self, volume_name: str, subvolume: bytes | None, path: bytes) -> bool:
        tree = self._tree(volume_name, subvolume)
        return path in tree or any(each.startswith(path + b"/") for each in tree)

    def names(self, volume_name: str, subvolume: bytes | None, folder: bytes) -> Iterable[bytes]:
        above = folder + b"/" if folder else b""
        tree = self._tree(volume_name, subvolume)
        return {path[len(above) :].split(b"/")[0] for path in tree if path.startswith(above)}

    def read_file(
        self, volume_name: str, subvolume: bytes | None, path: bytes, max_size: int
    ) -> bytes | None:
        content = self._tree(volume_name, subvolume).get(path)
        return None if content is None else content[:max_size]

    def subvolumes(self, volume_name: str) -> Mapping[bytes, FileId]:
        self._tree(volume_name, b"")
        numbers = {path: 256 + number for number, path in enumerate(self.btrfs[volume_name])}
        return {path: FileId(numbers[path] if path else 5, 256) for path in numbers}

    def default_subvolume(self, volume_name: str) -> FileId:
        return self.subvolumes(volume_name)[self.default.get(volume_name, b"")]

    def mounted_devices(self, volume_name: str, hive: bytes) -> Mapping[str, bytes]:
        raise AssertionError(f"{volume_name} has no Windows")

    def _tree(self, volume_name: str, subvolume: bytes | None) -> Tree:
        if volume_name in self.broken:
            raise GuestDamaged("its superblock is gone")
        if subvolume is None:
            return self.trees.get(volume_name, {})
        return self.btrfs[volume_name][subvolume]


def volume(name: str, kind: str = "ext", **facts: object) -> Volume:
    """Anywhere."""
    return Volume(name, 1 << 20, (Piece(0, 1 << 20, 1 << 20, ((0, 0),)),), kind, **facts)  # type: ignore[arg-type]


ROOT = volume("disk0-p2", uuid="aaaa")
HOME = volume("vg-home", "xfs", devices=("/dev/mapper/vg-home",))
BOOT = volume("disk0-p1", "fat32", uuid="C0FF-EE00", label="EFI")
BTRFS = volume("disk0-p3", "btrfs", uuid="bbbb", label="pool")
FOLDERS: Tree = {b"etc/passwd": b"", b"usr/bin/sh": b""}


def with_fstab(*lines: str) -> Tree:
    """A root with this fstab."""
    return {**FOLDERS, b"etc/fstab": "\n".join([*lines, ""]).encode()}


def test_an_ordinary_system() -> None:
    """Root first, parents before children, whatever the order of the lines."""
    files = Files(
        {
            ROOT.name: with_fstab(
                "UUID=c0ff-ee00 /boot/efi vfat umask=0077 0 1",
                "/dev/vg/home /home xfs defaults 0 0",
                "UUID=bbbb /boot btrfs defaults 0 0",
                "UUID=aaaa / ext4 errors=remount-ro 0 1",
                "/dev/vg/swap none swap sw 0 0",
            )
        },
        {BTRFS.name: {b"": {}}},
    )
    assert plan_root([BOOT, ROOT, BTRFS, HOME], files) == RootPlan(
        "unix",
        (
            Mount(b"/", ROOT.name),
            Mount(b"/boot", BTRFS.name, b""),
            Mount(b"/boot/efi", BOOT.name),
            Mount(b"/home", HOME.name),
        ),
    )


def test_names_that_sort_between_a_parent_and_its_child() -> None:
    """`/a-b` is no child of `/a`, though `-` sorts before `/`."""
    lines = [f"LABEL=EFI {path} vfat" for path in ("/a/c", "/a-b", "/a", "/")]
    files = Files({ROOT.name: with_fstab("UUID=aaaa / ext4", *lines[:3])})
    mounts = plan_root([BOOT, ROOT], files).mounts
    assert [mount.path for mount in mounts] == [b"/", b"/a", b"/a/c", b"/a-b"]


def test_later_lines_lie_over_earlier_ones() -> None:
    """As mount does; a later line that leads nowhere hides nothing."""
    files = Files(
        {
            ROOT.name: with_fstab(
                "UUID=aaaa / ext4",
                "LABEL=EFI /data vfat",
                "/dev/vg/home //data/ xfs",
                "UUID=dddd /data ext4",
            )
        }
    )
    plan = plan_root([BOOT, ROOT, HOME], files)
    assert plan.mounts == (Mount(b"/", ROOT.name), Mount(b"/data", HOME.name))
    assert plan.notes == (
        "/etc/fstab line 4 (UUID=dddd /data ext4) names no volume that is in this backup.",
    )


def test_lines_that_lead_nowhere_are_noted() -> None:
    """Network, missing and unreadable volumes, by line and reason."""
    locked = volume("disk1-p1", "luks", uuid="cccc", problem="It is encrypted with LUKS.")
    files = Files(
        {
            ROOT.name: with_fstab(
                "UUID=aaaa / ext4",
                "UUID=eeee /gone ext4",
                "nas:/x /nas nfs",
                "UUID=cccc /secret ext4",
            )
        }
    )
    plan = plan_root([ROOT, locked], files)
    assert plan.mounts == (Mount(b"/", ROOT.name),)
    assert plan.notes == (
        "/etc/fstab line 3 (nas:/x /nas nfs) is on the network, so it is not in this backup.",
        "/etc/fstab line 2 (UUID=eeee /gone ext4) names no volume that is in this backup.",
        "/etc/fstab line 4 (UUID=cccc /secret ext4) is disk1-p1, which cannot be read: "
        "It is encrypted with LUKS.",
    )


def test_guesses_by_order_and_by_one_of_several_are_noted() -> None:
    """Once for all names like /dev/sda1."""
    twin = volume("disk1-p1", "fat32", label="EFI")
    files = Files(
        {
            ROOT.name: with_fstab(
                "/dev/sda2 / ext4", "/dev/sda1 /boot vfat", "/dev/sda1 /b vfat", "LABEL=EFI /c auto"
            )
        }
    )
    plan = plan_root([BOOT, ROOT, twin], files)
    assert [mount.volume_name for mount in plan.mounts] == [
        ROOT.name,
        BOOT.name,
        BOOT.name,
        BOOT.name,
    ]
    assert plan.notes == (
        "Names like /dev/sda1 in /etc/fstab are taken by the order of the disks.",
        "/etc/fstab line 4 (LABEL=EFI /c auto) fits 2 volumes; disk0-p1 is shown.",
    )


def test_ubuntu_on_btrfs_with_snapshots() -> None:
    """The subvolume whose fstab names it is root, not its copies, wherever they sort."""
    root = with_fstab(
        "UUID=bbbb / btrfs defaults,subvol=@ 0 1", "UUID=bbbb /home btrfs subvol=/@home 0 2"
    )
    subvolumes = {b"": {}, b"@": root, b"@home": {}, b"0/@": root, b"!": root}
    plan = plan_root([BTRFS], Files(btrfs={BTRFS.name: subvolumes}))
    assert plan == RootPlan(
        "unix", (Mount(b"/", BTRFS.name, b"@"), Mount(b"/home", BTRFS.name, b"@home"))
    )


def test_suse_whose_default_subvolume_is_a_snapshot() -> None:
    """A line without subvol= means the default subvolume; the other snapshots have the same."""
    root = with_fstab("UUID=bbbb / btrfs defaults 0 0", "LABEL=pool /var btrfs subvol=/@/var")
    now = b"@/.snapshots/2/snapshot"
    subvolumes = {b"": {}, b"@": {}, b"@/.snapshots/1/snapshot": root, now: root, b"@/var": {}}
    files = Files(btrfs={BTRFS.name: subvolumes}, default={BTRFS.name: now})
    assert plan_root([BTRFS], files) == RootPlan(
        "unix", (Mount(b"/", BTRFS.name, now), Mount(b"/var", BTRFS.name, b"@/var"))
    )


def test_root_subvolume_from_the_kernel_command_line() -> None:
    """With rootflags=subvol=root the line for / names only the volume: still the best there is."""
    root = with_fstab("UUID=bbbb / btrfs defaults 0 0")
    files = Files(
        {ROOT.name: with_fstab("UUID=ffff / ext4")}, {BTRFS.name: {b"": {}, b"root": root}}
    )
    plan = plan_root([ROOT, BTRFS], files)
    assert plan.mounts == (Mount(b"/", BTRFS.name, b"root"),)


@pytest.mark.parametrize(
    ("options", "subvolume", "note"),
    [
        ("subvolid=257", b"@home", ""),
        ("subvolid=0x101", b"@home", ""),
        ("subvolid=0401", b"@home", ""),
        ("subvolid=5", b"", ""),
        ("subvolid=0", b"", ""),
        ("subvol=/", b"", ""),
        ("subvol=//@home/.", b"@home", ""),
        ("subvolid=257,subvol=@home", b"@home", ""),
        ("subvolid=300,subvol=@home", b"@home", "has a subvolid of another subvolume"),
        ("subvolid=300", None, "names a subvolume that disk0-p3 does not have"),
        ("subvolid=09", None, "names a subvolume that disk0-p3 does not have"),
        ("subvolid=-1", None, "names a subvolume that disk0-p3 does not have"),
        ("subvol=@gone", None, "names a subvolume that disk0-p3 does not have"),
        ("subvol=@home/folder", None, "names a subvolume that disk0-p3 does not have"),
    ],
)
def test_ways_to_name_a_subvolume(options: str, subvolume: bytes | None, note: str) -> None:
    """By path and by number in the three ways that the kernel reads numbers."""
    tree = with_fstab("UUID=aaaa / ext4", f"UUID=bbbb /b btrfs {options}")
    files = Files({ROOT.name: tree}, {BTRFS.name: {b"": {}, b"@home": {b"folder/x": b""}}})
    plan = plan_root([ROOT, BTRFS], files)
    mounted = [mount.subvolume for mount in plan.mounts if mount.path == b"/b"]
    assert mounted == ([] if subvolume is None else [subvolume])
    assert [note in each for each in plan.notes] == ([True] if note else [])


def test_a_backup_copy_of_a_root_is_not_root() -> None:
    """A volume with a copy of the whole tree comes first, but its fstab names the other."""
    tree = with_fstab("UUID=aaaa / ext4")
    copy = volume("disk0-p1", uuid="9999")
    files = Files({copy.name: tree, ROOT.name: tree})
    assert plan_root([copy, ROOT], files) == RootPlan("unix", (Mount(b"/", ROOT.name),))


def test_two_systems() -> None:
    """The first is shown, the other one told."""
    other = volume("disk1-p1", uuid="9999")
    files = Files(
        {ROOT.name: with_fstab("UUID=aaaa / ext4"), other.name: with_fstab("UUID=9999 / ext4")}
    )
    plan = plan_root([ROOT, other], files)
    assert plan.mounts == (Mount(b"/", ROOT.name),)
    assert plan.notes == ("/ could also be disk1-p1; shown is disk0-p2.",)


def test_cloned_disks() -> None:
    """Each clone's fstab means the clone itself, so the first of them is shown."""
    clone = volume("disk1-p2", uuid="aaaa")
    tree = with_fstab("UUID=aaaa / ext4")
    plan = plan_root([ROOT, clone], Files({ROOT.name: tree, clone.name: tree}))
    assert plan.mounts == (Mount(b"/", ROOT.name),)


@pytest.mark.parametrize(
    ("line", "note"),
    [("LABEL=x /x ext4", "names no volume here as /"), ("UUID=8888 / ext4", "names no volume")],
)
def test_the_only_fstab_wins_though_it_does_not_name_itself(line: str, note: str) -> None:
    """A guess, and said to be one."""
    plan = plan_root([HOME, ROOT], Files({HOME.name: FOLDERS, ROOT.name: with_fstab(line)}))
    assert plan.mounts == (Mount(b"/", ROOT.name),)
    assert note in plan.notes[0]


def test_a_root_without_fstab() -> None:
    """By its folders, alone, and said to be a guess."""
    files = Files({BOOT.name: {b"etc/x": b""}, HOME.name: {b"usr/x": b""}, ROOT.name: FOLDERS})
    plan = plan_root([BOOT, HOME, ROOT], files)
    assert (plan.kind, plan.mounts) == ("unix", (Mount(b"/", ROOT.name),))
    assert plan.notes[0].startswith("No /etc/fstab was found. disk0-p2 has the folders of a root")


def test_nothing_to_show() -> None:
    """The notes say what was looked for, and which volumes could not be looked at."""
    locked = volume("disk1-p1", "luks", problem="It is encrypted with LUKS.")
    plan = plan_root([HOME, locked], Files({HOME.name: {b"alice/x": b""}}))
    assert (plan.kind, plan.mounts) == ("none", ())
    assert plan.notes[0].startswith("No installed system was found")
    assert plan.notes[1] == "It may be on one that cannot be read: disk1-p1."
    assert plan_root([], Files()).kind == "none"


def test_a_damaged_volume_costs_only_itself() -> None:
    """What fails is noted with its reason, and the rest is planned."""
    files = Files(
        {ROOT.name: with_fstab("UUID=aaaa / ext4")}, {BTRFS.name: {b"": {}}}, broken={BTRFS.name}
    )
    plan = plan_root([BTRFS, ROOT], files)
    assert plan.mounts == (Mount(b"/", ROOT.name),)
    assert plan.notes == ("Not all of disk0-p3 could be read: its superblock is gone",)


def test_a_thousand_subvolumes_are_not_all_searched() -> None:
    """Those near the top come first; a root below a thousand snapshots is not looked for."""
    root = with_fstab("UUID=bbbb / btrfs subvol=deep/below/root")
    snapshots: dict[bytes, Tree] = {b"s%d" % number: {} for number in range(1000)}
    subvolumes = {b"": {}, **snapshots, b"deep/below/root": root}
    assert plan_root([BTRFS], Files(btrfs={BTRFS.name: subvolumes})).kind == "none"


def test_a_thousand_notes_are_cut() -> None:
    """Somebody has to read them."""
    lines = [f"UUID={number} /m{number} ext4" for number in range(900)]
    plan = plan_root([ROOT], Files({ROOT.name: with_fstab("UUID=aaaa / ext4", *lines)}))
    assert len(plan.notes) == NOTES_MAX + 1
    assert plan.notes[-1] == "And 700 more of such notes, left out."


SOURCES = st.sampled_from(["UUID=aaaa", "UUID=bbbb", "LABEL=EFI", "/dev/vg/home", "/dev/sda2", "x"])
PATHS = st.lists(st.sampled_from(["a", "a-b", ".", "", "c"]), max_size=3).map(
    lambda names: "/" + "/".join(names)
)
OPTIONS = st.sampled_from(["defaults", "subvol=@", "subvolid=5", "subvol=@x", "bind"])


@given(st.lists(st.tuples(SOURCES, PATHS, st.just("auto"), OPTIONS), max_size=12))
def test_every_plan_can_be_carried_out(lines: list[tuple[str, str, str, str]]) -> None:
    """One root, first; no path twice; no path before one above it; only known volumes."""
    tree = with_fstab(*map(" ".join, lines))
    files = Files({ROOT.name: tree}, {BTRFS.name: {b"": tree, b"@": tree}})
    volumes = [BOOT, ROOT, HOME, BTRFS]
    plan = plan_root(volumes, files)
    paths = [mount.path for mount in plan.mounts]
    assert paths[0] == b"/"
    assert len(set(paths)) == len(paths)
    for at, path in enumerate(paths):
        assert not any(later == b"/" or path.startswith(later + b"/") for later in paths[at + 1 :])
    for mount in plan.mounts:
        assert (mount.subvolume is not None) == (mount.volume_name == BTRFS.name)
        assert mount.subvolume in (None, b"", b"@")
