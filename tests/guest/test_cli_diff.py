"""`backpoint diff`: what it lists is what the kernel's views of both disks differ in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpoint_repo.source.raw_image import RawImage
from command_line import CommandLine, make_repository, opened
from guest_disks.tool import run
from guest_points import Machine, make_machine, run_here
from guest_trees.disks import make_image, mounted_image
from guest_trees.walk import Seen, Tree, walk_folder
from small_repository import assert_clean, back_up

_MIB = 1 << 20
_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Tree, Tree]]:
    """Two points of a machine, and what the kernel showed at each."""
    machine = make_machine(tmp_path_factory.mktemp("machine"))
    with machine.mounted() as root:
        before = walk_folder(root)
    machine.back_up()
    with machine.mounted(read_only=False) as root:
        _work(root)
        os.sync()
    run("mkswap", "-q", machine.disks[2])
    with machine.mounted() as root:
        after = walk_folder(root)
    machine.back_up()
    yield machine, before, after
    machine.assert_clean()


def _work(root: Path) -> None:
    """Changes of every sort, some of which nobody could see."""
    (root / "etc/added").write_bytes(b"new")
    shutil.copytree(root / "links/symbolic", root / "links/copied", symlinks=True)
    shutil.rmtree(root / "names/deep")
    (root / "content/size 4096").unlink()
    _rewrite(root / "content/rewritten", 100_000, b"hallo")
    _rewrite(root / "content/fragmented 1", 900_000, b"hallo")
    _rewrite(root / "content/compressible", 0, (root / "content/compressible").read_bytes()[:9000])
    with (root / "content/size 511").open("ab") as file:
        file.write(b"longer")
    (root / "content/comb").touch()
    (root / "etc/fstab").chmod(0o600)
    (root / "etc/fstab").chmod(0o644)  # its time of change differs, and nothing else
    (root / "attributes/modes/file 0644").chmod(0o640)
    os.chown(root / "attributes/owners/link", 5, 6, follow_symlinks=False)
    os.setxattr(root / "attributes/xattrs/few", "user.two", b"2")
    run("setfacl", "-m", "u:77:r", root / "attributes/acls/file")
    (root / "links/symbolic/relative").unlink()
    (root / "links/symbolic/relative").symlink_to("targot")
    shutil.rmtree(root / "links/hard/place 1")
    (root / "links/hard/place 1").write_bytes(b"was a folder")
    (root / "links/hard/pair").unlink()
    (root / "links/hard/pair").mkdir()
    (root / "links/hard/pair/inside").write_bytes(b"")
    # The same bytes and times in another file: equal for whoever looks.
    shutil.copy2(root / "usr/bin/tool", root / "usr/bin/twin")
    (root / "usr/bin/twin").rename(root / "usr/bin/tool")


def _rewrite(path: Path, offset: int, content: bytes) -> None:
    """Without a trace in its time of modification."""
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_differences_are_those_between_the_kernels_views(
    walks: tuple[Machine, Tree, Tree],
) -> None:
    """All sorts of change in the guest's own view; folders' own times apart."""
    machine, before, after = walks
    said = machine.owner.run("diff", "--json", "web@-2", "web@-1", "/", code=1)
    assert said.err == ""
    found = {}
    for line in said.out.splitlines():
        record = json.loads(line)
        path = (
            bytes.fromhex(record["path_hex"]) if "path_hex" in record else record["path"].encode()
        )
        assert path not in found
        found[path] = (record["change"], tuple(record["what"]))
    assert found == _expected(before, after)
    kinds = {change for change, _ in found.values()}
    whats = {what for _, all_of_it in found.values() for what in all_of_it}
    assert kinds == {"added", "removed", "changed"}
    assert whats == {"type", "content", "target", "mode", "owner", "time", "attributes"}


def test_all_volumes_are_compared_by_name(walks: tuple[Machine, Tree, Tree]) -> None:
    """The same in lines; swap as a whole; the volume that did not change is not mentioned."""
    machine, before, after = walks
    lines = machine.owner.run("diff", "web@-2", "web@-1", code=1).out.splitlines()
    assert "M disk2  (content)" in lines
    assert "+ disk0/links/copied/" in lines
    assert "M disk0/content/rewritten  (content)" in lines
    assert "M disk0/links/hard/pair/  (type)" in lines
    assert len(lines) == len(_expected(before, after)) + 1
    assert not [line for line in lines if "disk1" in line]


def test_one_place_of_both(
    walks: tuple[Machine, Tree, Tree], capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, one file, one that only one point has; 0 where nothing differs."""
    machine, _, _ = walks

    def said(*words: str, code: int) -> str:
        return run_here(machine.owner, capsys, "diff", *words, code=code).out

    assert said("web@0", "web@1", "/etc", code=1) == "+ /etc/added\n"
    assert said("web@1", "web@0", "disk0/etc/added", code=1) == "- disk0/etc/added\n"
    assert said("web@0", "web@1", "disk1/inner", code=0) == ""
    assert said("web@1", "web@1", code=0) == ""
    told = run_here(machine.owner, capsys, "diff", "web@0", "web@1", "/nowhere", code=2).error
    assert "there is no /nowhere" in told
    told = run_here(machine.owner, capsys, "diff", "web@0:/etc", "web@1", code=2).error
    assert "behind both points" in told
    assert "agent credential" in machine.agent.run("diff", "web@0", "web", code=5).error


def test_what_did_not_change_is_not_even_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A volume that cannot be read costs nothing where its bytes are the same; where they differ,
    what could not be compared is told, and the exit code is the guest's."""
    line = make_repository(tmp_path, tmp_path / "repo")[0]
    damaged, good = tmp_path / "damaged.raw", tmp_path / "good.raw"
    for image in (damaged, good):
        make_image(image, "ext4", 12 * _MIB)
    said = run("debugfs", "-R", "imap /", damaged)
    block = int(said.split("at block ")[1].split(",")[0])
    whole = damaged.read_bytes()
    _spoil(damaged, block * 4096, 4096)
    _point(line, good, damaged)
    with mounted_image(good, "ext4") as root:
        (root / "file").write_bytes(b"file")
    _point(line, good, damaged)
    told = run_here(line, capsys, "diff", "vm@0", "vm@1", code=1)
    assert (told.out, told.err) == ("+ disk0/file\n", "")
    _spoil(damaged, block * 4096 + 8192, 4096)
    _point(line, good, damaged)
    assert run_here(line, capsys, "diff", "vm@1", "vm@2", code=1).out == "M disk1  (content)\n"
    damaged.write_bytes(whole)
    _point(line, good, damaged)
    told = run_here(line, capsys, "diff", "vm@2", "vm@3", code=3)
    assert told.out == ""
    assert told.error.startswith("disk1: in one of the points, its ext filesystem cannot be read")
    assert_clean(opened(line))


def test_a_disk_that_came_and_one_that_grew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new disk's files are added; of a larger disk only what is in its files counts."""
    line = make_repository(tmp_path, tmp_path / "repo")[0]
    first, second = tmp_path / "first.raw", tmp_path / "second.raw"
    for image in (first, second):
        make_image(image, "ext4", 12 * _MIB)
        with mounted_image(image, "ext4") as root:
            (root / "file").write_bytes(b"file" * 5000)
    _point(line, first)
    with first.open("r+b") as file:
        file.truncate(20 * _MIB)
    run("resize2fs", first)
    _point(line, first, second)
    said = run_here(line, capsys, "diff", "vm@0", "vm@1", code=1)
    assert said.out.splitlines() == ["+ disk1/", "+ disk1/file", "+ disk1/lost+found/"]
    assert_clean(opened(line))


def _point(line: CommandLine, *disks: Path) -> None:
    back_up(opened(line), "vm", *map(RawImage, disks))


def _spoil(image: Path, offset: int, length: int) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"\x5a" * length)


def _expected(before: Tree, after: Tree) -> dict[bytes, tuple[str, tuple[str, ...]]]:
    found: dict[bytes, tuple[str, tuple[str, ...]]] = {}
    for path in before.keys() | after.keys():
        old, new = before.get(path), after.get(path)
        if old is None:
            found[b"/" + path] = ("added", ())
        elif new is None:
            found[b"/" + path] = ("removed", ())
        elif what := tuple(_what(old, new)):
            found[b"/" + path] = ("changed", what)
    return found


def _what(old: Seen, new: Seen) -> Iterator[str]:
    if old.mode >> 12 != new.mode >> 12:
        yield "type"
        return
    if old.content != new.content:
        yield "target" if old.mode >> 12 == 0o12 else "content"
    if old.mode != new.mode:
        yield "mode"
    if (old.uid, old.gid) != (new.uid, new.gid):
        yield "owner"
    if old.mtime_ns != new.mtime_ns and old.mode >> 12 != 0o4:
        yield "time"
    if old.xattrs != new.xattrs:
        yield "attributes"
