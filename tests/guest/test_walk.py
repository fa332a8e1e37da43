"""The walk that judges every guest filesystem: it sees each single difference, and nothing else."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from blake3 import blake3

from guest_disks.tool import run
from guest_trees.abilities import Abilities
from guest_trees.awkward import fill
from guest_trees.disks import make_image, mounted_image
from guest_trees.walk import Seen, Tree, walk_folder, without_times

_MIB = 1 << 20
_LONG = 80 * _MIB
_PAST_NS = 10**18 + 123_456_789
_FEW = Abilities(big_sparse_size=0, many_links=100, many_entries=100)


def _make_tree(root: Path) -> None:
    """One of everything, all times in the past."""
    (root / "file").write_bytes(b"content of a file")
    (root / "folder" / "below").mkdir(parents=True)
    os.symlink("target", root / "link")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.setxattr(root / "file", "user.a", b"value")
    for first, second in (("a", "b"), ("c", "d")):
        (root / first).write_bytes(b"the same in both pairs")
        os.link(root / first, root / second)
    with (root / "sparse").open("xb") as file:
        file.truncate(_LONG)
        os.pwrite(file.fileno(), b"begin", 0)
        os.pwrite(file.fileno(), b"end", _LONG - 3)
    for path in (*root.rglob("*"), root):
        os.utime(path, ns=(_PAST_NS, _PAST_NS), follow_symlinks=False)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ext4 filesystem with the tree of `_make_tree`."""
    path = tmp_path_factory.mktemp("walk") / "image"
    make_image(path, "ext4", 16 * _MIB)
    with mounted_image(path, "ext4") as root:
        _make_tree(root)
    return path


def _write(name: str, offset: int, content: bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        with (root / name).open("r+b") as file:
            os.pwrite(file.fileno(), content, offset)

    return change


def _replace(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    """Another in the place of `name`, its folder's times kept."""

    def change(root: Path) -> None:
        (root / name).unlink()
        make(root / name)
        os.utime(root / name, ns=(_PAST_NS, _PAST_NS), follow_symlinks=False)
        os.utime((root / name).parent, ns=(_PAST_NS, _PAST_NS))

    return change


def _link_crosswise(root: Path) -> None:
    """a = b and c = d become a = c and b = d: no file's own numbers change but its ctime."""
    (root / "b").unlink()
    (root / "c").unlink()
    os.link(root / "a", root / "c")
    os.link(root / "d", root / "b")


# What is done, and where which fields differ then; the ctime of those files differs besides.
_CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "a byte": (_write("file", 3, b"T"), {"file": "content mtime_ns"}),
    "a byte deep in a long file": (
        _write("sparse", _LONG // 2, b"x"),
        {"sparse": "content mtime_ns"},
    ),
    "a byte just before a long file's end": (
        _write("sparse", _LONG - 4, b"x"),
        {"sparse": "content mtime_ns"},
    ),
    "a zero more": (
        lambda root: os.truncate(root / "file", 18),
        {"file": "content size mtime_ns"},
    ),
    "a zero more of a long file": (
        lambda root: os.truncate(root / "sparse", _LONG + 1),
        {"sparse": "content size mtime_ns"},
    ),
    "mode": (lambda root: (root / "file").chmod(0o4755), {"file": "mode"}),
    "mode of a folder": (lambda root: (root / "folder").chmod(0o1755), {"folder": "mode"}),
    "mode of the root": (lambda root: root.chmod(0o700), {"": "mode"}),
    "uid": (lambda root: os.lchown(root / "link", 70_000, -1), {"link": "uid"}),
    "gid": (lambda root: os.lchown(root / "file", -1, 70_000), {"file": "gid"}),
    "atime": (
        lambda root: os.utime(root / "file", ns=(_PAST_NS + 1, _PAST_NS)),
        {"file": "atime_ns"},
    ),
    "mtime": (
        lambda root: os.utime(root / "folder", ns=(_PAST_NS, _PAST_NS - 1)),
        {"folder": "mtime_ns"},
    ),
    "ctime alone": (lambda root: (root / "file").chmod(0o644), {"file": ""}),
    "type": (
        _replace("fifo", lambda path: os.mknod(path, stat.S_IFSOCK | 0o644)),
        {"fifo": "mode", "": ""},
    ),
    "device": (
        _replace("null", lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))),
        {"null": "rdev", "": ""},
    ),
    "target": (
        _replace("link", lambda path: os.symlink("tarGet", path)),
        {"link": "content", "": ""},
    ),
    "an attribute's value": (
        lambda root: os.setxattr(root / "file", "user.a", b"valuE"),
        {"file": "xattrs"},
    ),
    "an attribute of no length": (
        lambda root: os.setxattr(root / "folder", "user.b", b""),
        {"folder": "xattrs"},
    ),
    "an ACL": (
        lambda root: run("setfacl", "-d", "-m", "u:70000:r", root / "folder"),
        {"folder": "xattrs"},
    ),
    "a name less": (
        lambda root: (root / "b").unlink(),
        {"": "mtime_ns", "a": "nlink links", "b": "gone"},
    ),
    "other links": (
        _link_crosswise,
        {"": "mtime_ns", "a": "links", "b": "links", "c": "links", "d": "links"},
    ),
    "a name": (
        lambda root: (root / "folder").rename(root / "Folder"),
        {"": "mtime_ns", "folder": "gone", "Folder": "new", "folder/below": "gone"}
        | {"Folder/below": "new"},
    ),
    "an empty folder": (
        lambda root: (root / "folder" / "below" / "new").mkdir(),
        {"folder/below": "mtime_ns nlink", "folder/below/new": "new"},
    ),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_one_change_is_seen_where_it_is_and_nowhere_else(
    name: str, image: Path, tmp_path: Path
) -> None:
    change, expected = _CHANGES[name]
    copy = Path(shutil.copy(image, tmp_path / "copy"))
    with mounted_image(copy, "ext4", options=["noatime"]) as root:
        change(root)
    assert _differences(_seen(image), _seen(copy)) == {
        path.encode(): {words} if words in ("gone", "new") else {*words.split(), "ctime_ns"}
        for path, words in expected.items()
    }


def test_a_walk_changes_nothing_that_the_next_one_sees(image: Path) -> None:
    """Reading leaves its traces in times of access: not in a read-only mount."""
    before = image.read_bytes()
    assert _seen(image) == _seen(image)
    assert image.read_bytes() == before


def test_times_left_out_are_those_of_access_and_change_only(image: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(image, tmp_path / "copy"))
    with mounted_image(copy, "ext4", options=["noatime"]) as root:
        os.utime(root / "file", ns=(_PAST_NS + 5, _PAST_NS))
        os.utime(root / "folder", ns=(_PAST_NS, _PAST_NS + 5))
    before, after = without_times(_seen(image)), without_times(_seen(copy))
    assert _differences(before, after) == {b"folder": {"mtime_ns"}}


def test_holes_that_are_not_read_count_as_zeros(image: Path) -> None:
    with mounted_image(image, "ext4", read_only=True) as root:
        content = (root / "sparse").read_bytes()
        assert len(content) == _LONG
        assert walk_folder(root)[b"sparse"].content == blake3(content).digest()


def test_an_awkward_tree_is_the_same_for_the_same_seed_only(tmp_path: Path) -> None:
    trees = []
    for number, seed in enumerate((1, 1, 2)):
        path = tmp_path / f"{number}"
        make_image(path, "ext4", 64 * _MIB)
        with mounted_image(path, "ext4") as root:
            fill(root, _FEW, seed)
        trees.append({name: (one.mode, one.content) for name, one in _seen(path).items()})
    assert trees[0] == trees[1]
    assert trees[0] != trees[2]
    assert {b"content", b"names", b"links", b"attributes"} <= trees[0].keys()


def test_a_driver_that_keeps_less_than_promised_is_not_filled_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "image"
    make_image(path, "ext4", 64 * _MIB, ["-I", "128"])
    with mounted_image(path, "ext4") as root, pytest.raises(RuntimeError, match="came back as"):
        fill(root, _FEW)


def _seen(image: Path) -> Tree:
    with mounted_image(image, "ext4", read_only=True) as root:
        return walk_folder(root)


def _differences(before: Tree, after: Tree) -> dict[bytes, set[str]]:
    """Path -> what differs there: names of fields of Seen, or `gone` or `new`."""
    found = {path: {"gone"} for path in before.keys() - after.keys()}
    found |= {path: {"new"} for path in after.keys() - before.keys()}
    for path in before.keys() & after.keys():
        one, other = before[path], after[path]
        differ = {f.name for f in fields(Seen) if getattr(one, f.name) != getattr(other, f.name)}
        if differ:
            found[path] = differ
    return found
