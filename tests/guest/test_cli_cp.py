"""`backpoint cp`: what comes out of a point is what the kernel shows of its disks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guest_disks.tool import run
from guest_points import Machine, make_machine, run_here
from guest_trees.disks import make_image, mounted_image
from guest_trees.walk import Tree, walk_folder

_MIB = 1 << 20


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With one point."""
    made = make_machine(tmp_path_factory.mktemp("machine"))
    made.back_up()
    yield made
    made.assert_clean()


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a filesystem that can hold all that the guest's can."""
    image = tmp_path_factory.mktemp("dest") / "dest.raw"
    make_image(image, "ext4", 400 * _MIB)
    with mounted_image(image, "ext4", read_only=False) as root:
        yield root


def comparable(tree: Tree) -> Tree:
    """Without what no copy can keep: times of change and (once looked at) of access, and how many
    subfolders a folder's links count."""
    return {
        path: replace(
            seen,
            atime_ns=0,
            ctime_ns=0,
            nlink=0 if stat.S_ISDIR(seen.mode) else seen.nlink,
        )
        for path, seen in tree.items()
    }


def test_a_whole_guest_is_copied_as_the_kernel_shows_it(machine: Machine, dest: Path) -> None:
    """Every awkward case, across the mount at /data: names, contents, modes, owners, times, links,
    extended attributes, ACLs, devices; and no file takes more room than it did."""
    said = machine.owner.run("cp", "--json", "web@latest:/", dest / "all")
    with machine.mounted() as root:
        assert comparable(walk_folder(dest / "all")) == comparable(walk_folder(root))
        files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
        for path in files:
            copy = dest / "all" / path.relative_to(root)
            assert copy.stat().st_blocks <= path.stat().st_blocks + 8, path
        inodes = {(found.st_dev, found.st_ino) for found in map(os.stat, files)}
    assert said.record["files"] == len(inodes)
    assert (said.record["failed"], said.record["not_kept"]) == (0, {})


def test_one_file_goes_to_stdout_byte_for_byte(machine: Machine) -> None:
    """One of many holes, and what a link leads to; nothing else is on stdout."""
    with machine.mounted() as root:
        for name in ("/content/comb", "/bin/tool"):
            with machine.owner.start("cp", f"web:{name}", "-") as process:
                out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, b"")
            assert out == (root / name.strip("/")).read_bytes()


def test_where_copies_go(machine: Machine, dest: Path) -> None:
    """Into a folder by their names, to a new name, or a folder's content by a slash at the end."""
    here = dest / "where"
    here.mkdir()
    machine.owner.run("cp", "web:/etc", "web:/bin", "web:/bin/", "web:/data/../data/inner/.", here)
    assert sorted(os.listdir(here)) == ["bin", "etc", "file", "tool"]
    assert os.readlink(here / "bin") == "usr/bin"
    machine.owner.run("cp", "web:disk0/etc/", here / "named")
    machine.owner.run("cp", "web:/etc/fstab", "renamed", cwd=here)
    fstab = (here / "etc/fstab").read_bytes()
    assert fstab == (here / "named/fstab").read_bytes() == (here / "renamed").read_bytes()


def test_what_is_there_is_left_alone_unless_forced(machine: Machine, dest: Path) -> None:
    """Folders are merged; a taken name is reported by its path and costs nothing else; a link that
    stands in the way is replaced, never followed."""
    here = dest / "taken"
    (here / "bin").mkdir(parents=True)
    (here / "etc").mkdir()
    (here / "etc/fstab").symlink_to("../mine")
    (here / "mine").write_bytes(b"mine")
    (here / "etc").chmod(0o711)
    said = machine.owner.run("cp", "web:/etc", "web:/usr", here, code=2)
    assert said.err == "backpoint: /etc/fstab: is there already (--force replaces files)\n"
    assert (here / "usr/bin/tool").exists()
    assert (here / "etc").stat().st_mode & 0o777 == 0o711
    said = machine.owner.run("cp", "--force", "web:/bin", "web:/etc", here, code=2)
    assert said.err == "backpoint: /bin: is there already, as a folder\n"
    assert (here / "mine").read_bytes() == b"mine"
    assert "UUID=" in (here / "etc/fstab").read_text()
    assert not (here / "etc/fstab").is_symlink()
    assert (here / "etc").stat().st_mode & 0o777 == 0o755
    assert not [path for path in here.rglob("*") if path.name.startswith(".backpoint")]


def test_hard_links_stay_one_file_when_copied_over_themselves(machine: Machine, dest: Path) -> None:
    """Forced over an older copy, too."""
    for force in ((), ("--force",)):
        machine.owner.run(
            "cp", *force, "web:disk0/links/hard", dest / "hard" if not force else dest
        )
        pair = [(dest / "hard" / name).stat() for name in ("pair", "pair again")]
        assert pair[0].st_ino == pair[1].st_ino
        assert pair[0].st_nlink == 2
    assert (dest / "hard/first").stat().st_nlink == 200


def test_without_owners_nothing_grants_rights(machine: Machine, dest: Path) -> None:
    """--no-owner: all is ours, without setuid bits, ACLs and attributes of security."""
    said = machine.owner.run("cp", "--no-owner", "web:disk0/attributes", dest)
    assert "setuid" in said.err
    copies = [dest / "attributes", *(dest / "attributes").rglob("*")]
    for path in copies:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
        assert not found.st_mode & 0o6000
        names = os.listxattr(path, follow_symlinks=False)
        assert all(name.startswith("user.") for name in names), path
    assert (dest / "attributes/modes/file 0111").stat().st_mode & 0o7777 == 0o111
    assert os.listxattr(dest / "attributes/xattrs/few") == ["user.one"]


def test_no_acl_is_inherited_from_where_the_copy_lies(machine: Machine, dest: Path) -> None:
    """A default ACL of the folder copied into gives nobody rights that the guest did not."""
    here = dest / "inheriting"
    here.mkdir()
    run("setfacl", "-d", "-m", "u:1234:rwx", here)
    machine.owner.run("cp", "web:disk0/etc", here)
    for path in (here / "etc", here / "etc/fstab"):
        assert not os.listxattr(path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("web:/nowhere/x", "{dest}"), "there is no /nowhere/x"),
        (("web:/etc/fstab/", "{dest}"), "no folder"),
        (("web:/links/symbolic/itself/x", "{dest}"), "in circles"),
        (("web:disk7/etc", "{dest}"), "there is no volume disk7; there are: disk0, disk1, disk2"),
        (("web:", "{dest}"), "which files"),
        (("web@2025:/etc", "{dest}"), "names no point"),
        (("web:/etc", "{dest}/no/where"), "there is no folder"),
        (("web:/etc", "web:/usr", "{dest}/new"), "there is no folder"),
        (("web:/etc", "-"), "no regular file"),
        (("web:/etc/fstab", "web:/etc/fstab", "-"), "one file only"),
    ],
)
def test_wrong_use_is_one_sentence(
    machine: Machine,
    dest: Path,
    words: tuple[str, ...],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And nothing is left in the folder."""
    before = sorted(os.listdir(dest))
    named = [word.format(dest=dest) for word in words]
    assert told in run_here(machine.owner, capsys, "cp", *named, code=2).error
    assert sorted(os.listdir(dest)) == before


def test_what_only_the_owner_may_read_and_what_is_no_filesystem(
    machine: Machine, dest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The agent credential is refused; swap has no files, which is said."""
    assert "agent credential" in machine.agent.run("cp", "web:/etc", dest, code=5).error
    said = run_here(machine.owner, capsys, "cp", "web:disk2/x", dest, code=3).error
    assert "disk2 cannot be read: " in said
