"""Names of a session: as POSIX has them, durable at once, never a number twice, never believed."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeTree, NodeType


def node(name: bytes, parent: int = ROOT_NODE, kind: NodeType = NodeType.FILE) -> LiveNode:
    """A new node; links lead to `there`, disks are number 3."""
    target = b"there" if kind is NodeType.LINK else b""
    disk = 3 if kind is NodeType.DISK else None
    return LiveNode(0, kind, parent, name, 0o600, 7, 8, 1000, 2000, disk, target)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[NodeTree]:
    opened = NodeTree(tmp_path / "names.sqlite")
    yield opened
    opened.close()


@dataclass
class _Entry:
    """A file or folder of the model."""

    number: int
    folder: bool
    names: dict[bytes, _Entry] = field(default_factory=dict)


def _errno(work: Callable[[], object]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or 0
    return 0


NAMES = st.sampled_from([b"a", b"b", b"\xff", b"disk0.vmdk"])
PLACES = st.integers(0, 20)


class TreeMachine(RuleBasedStateMachine):
    """The tree against dictionaries, closed and opened again at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(os.path.realpath(os.environ.get("TMPDIR", "/tmp")))
        self.folder = self.folder / f"backpoint-node-tree-{os.getpid()}-{id(self)}"
        self.folder.mkdir()
        self.tree = NodeTree(self.folder / "names.sqlite")
        self.root = _Entry(ROOT_NODE, True)
        self.used = {ROOT_NODE}
        self.orphans: set[int] = set()

    def teardown(self) -> None:
        self.tree.close()
        shutil.rmtree(self.folder)

    def folders(self) -> list[_Entry]:
        found, at = [self.root], 0
        while at < len(found):
            found += [entry for entry in found[at].names.values() if entry.folder]
            at += 1
        return found

    def pick(self, place: int) -> _Entry:
        folders = self.folders()
        return folders[place % len(folders)]

    @rule(place=PLACES, name=NAMES, folder=st.booleans())
    def create(self, place: int, name: bytes, folder: bool) -> None:
        where = self.pick(place)
        kind = NodeType.FOLDER if folder else NodeType.FILE
        if name in where.names:
            assert _errno(lambda: self.tree.create(node(name, where.number))) == errno.EEXIST
            return
        made = self.tree.create(node(name, where.number, kind))
        assert made.number not in self.used
        self.used.add(made.number)
        where.names[name] = _Entry(made.number, folder)

    @rule(place=PLACES, name=NAMES)
    def unlink(self, place: int, name: bytes) -> None:
        where = self.pick(place)
        entry = where.names.get(name)
        if entry is None or entry.folder:
            wanted = errno.EISDIR if entry else errno.ENOENT
            assert _errno(lambda: self.tree.unlink(where.number, name)) == wanted
            return
        assert self.tree.unlink(where.number, name).number == entry.number
        self.orphans.add(where.names.pop(name).number)

    @rule(place=PLACES, name=NAMES)
    def remove_folder(self, place: int, name: bytes) -> None:
        where = self.pick(place)
        entry = where.names.get(name)
        if entry is None or not entry.folder or entry.names:
            wanted = errno.ENOTDIR if entry and not entry.folder else errno.ENOTEMPTY
            wanted = wanted if entry else errno.ENOENT
            assert _errno(lambda: self.tree.remove_folder(where.number, name)) == wanted
            return
        assert self.tree.remove_folder(where.number, name).number == entry.number
        del where.names[name]

    @rule(place=PLACES, name=NAMES, new_place=PLACES, new_name=NAMES, may_replace=st.booleans())
    def rename(
        self, place: int, name: bytes, new_place: int, new_name: bytes, may_replace: bool
    ) -> None:
        old, new = self.pick(place), self.pick(new_place)

        def work() -> LiveNode | None:
            return self.tree.rename(old.number, name, new.number, new_name, replace=may_replace)

        if wanted := self.refusal(old, name, new, new_name, may_replace):
            assert _errno(work) == wanted
            return
        replaced = work()
        target = new.names.get(new_name)
        if target is old.names[name]:
            assert replaced is None
            return
        assert (replaced and replaced.number) == (target and target.number)
        if target is not None and not target.folder:
            self.orphans.add(target.number)
        new.names[new_name] = old.names.pop(name)

    def refusal(
        self, old: _Entry, name: bytes, new: _Entry, new_name: bytes, may_replace: bool
    ) -> int:
        entry, target = old.names.get(name), new.names.get(new_name)
        if entry is None:
            return errno.ENOENT
        if _is_below(new, entry):
            return errno.EINVAL
        if target is None or (target is entry and may_replace):
            return 0
        if not may_replace:
            return errno.EEXIST
        if target.folder != entry.folder:
            return errno.EISDIR if target.folder else errno.ENOTDIR
        return errno.ENOTEMPTY if target.names else 0

    @rule()
    def drop_all(self) -> None:
        for number in self.orphans:
            self.tree.drop(number)
            self.tree.drop(number)
        self.orphans.clear()

    @rule(place=PLACES, when=st.integers(0, 1 << 40))
    def touch(self, place: int, when: int) -> None:
        number = self.pick(place).number
        self.tree.touch(number, when)
        self.tree.save_times()
        self.reopen()
        found = self.tree.node(number)
        assert found is not None
        assert found.mtime_ns == found.ctime_ns == when

    @rule()
    def reopen(self) -> None:
        self.tree.close()
        self.tree = NodeTree(self.folder / "names.sqlite")

    @rule()
    def crash(self) -> None:
        """What is on disk while the tree is open is all of it already."""
        copy = self.folder / "copy"
        copy.mkdir()
        for file in self.folder.glob("names.sqlite*"):
            shutil.copy(file, copy)
        self.tree.close()
        for file in self.folder.glob("names.sqlite*"):
            file.unlink()
        for file in copy.iterdir():
            file.rename(self.folder / file.name)
        copy.rmdir()
        self.tree = NodeTree(self.folder / "names.sqlite")

    @invariant()
    def same(self) -> None:
        assert {found.number for found in self.tree.unlinked()} == self.orphans
        linked = 0
        for folder in self.folders():
            shown = self.tree.children(folder.number)
            assert {n.name: n.number for n in shown} == {
                name: entry.number for name, entry in folder.names.items()
            }
            assert [n.number for n in shown] == sorted(n.number for n in shown)
            for found in shown:
                assert self.tree.child(folder.number, found.name) == found
                assert self.tree.node(found.number) == found
                assert found.parent == folder.number
            linked += len(shown)
        assert len(self.tree.linked()) == linked + 1


def _is_below(entry: _Entry, above: _Entry) -> bool:
    return entry is above or any(_is_below(entry, below) for below in above.names.values())


TreeMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestTreeMachine = TreeMachine.TestCase


def test_all_that_a_node_is_survives(tree: NodeTree, tmp_path: Path) -> None:
    """Type, disk, target, owner, times; changed attributes too."""
    made = [tree.create(node(kind.value.encode(), kind=kind)) for kind in NodeType]
    changed = replace(made[0], mode=0o4711, uid=1 << 31, gid=0, mtime_ns=-5, ctime_ns=6)
    tree.change(changed)
    tree.close()
    again = NodeTree(tmp_path / "names.sqlite")
    assert again.children(ROOT_NODE) == [changed, *made[1:]]
    again.close()


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        (node(b""), errno.EINVAL),
        (node(b"."), errno.EINVAL),
        (node(b".."), errno.EINVAL),
        (node(b"a/b"), errno.EINVAL),
        (node(b"a\0b"), errno.EINVAL),
        (node(b"x" * 256), errno.ENAMETOOLONG),
        (node(b"x", parent=99), errno.ENOENT),
        (replace(node(b"x", kind=NodeType.LINK), target=b"t" * 4096), errno.ENAMETOOLONG),
        (replace(node(b"x", kind=NodeType.LINK), target=b""), errno.EINVAL),
        (replace(node(b"x"), mode=0o100600), errno.EINVAL),
        (replace(node(b"x"), uid=-1), errno.EINVAL),
        (replace(node(b"x"), mtime_ns=1 << 63), errno.EINVAL),
        (replace(node(b"x"), number=77), errno.EINVAL),
    ],
)
def test_what_cannot_be(tree: NodeTree, bad: LiveNode, wanted: int) -> None:
    """Is refused with the errno that a program expects, and changes nothing."""
    assert _errno(lambda: tree.create(bad)) == wanted
    assert tree.children(ROOT_NODE) == []


def test_a_file_is_no_folder(tree: NodeTree) -> None:
    """Nothing can be made, moved or looked for inside it."""
    file = tree.create(node(b"file"))
    assert _errno(lambda: tree.create(node(b"x", file.number))) == errno.ENOTDIR
    assert _errno(lambda: tree.unlink(file.number, b"x")) == errno.ENOTDIR
    assert tree.child(file.number, b"x") is None
    into = partial(tree.rename, ROOT_NODE, b"file", file.number, b"x", replace=True)
    assert _errno(into) == errno.ENOTDIR
    assert _errno(lambda: tree.drop(file.number)) == errno.EINVAL


def test_folders_tell_when_their_names_changed(tmp_path: Path) -> None:
    """Network clients ask a folder's times whether what they know of it still holds."""
    ticks = iter(range(10_000, 20_000))
    tree = NodeTree(tmp_path / "names.sqlite", lambda: next(ticks))
    folder = tree.create(node(b"folder", kind=NodeType.FOLDER))

    def moments() -> tuple[int, int]:
        root, below = tree.node(ROOT_NODE), tree.node(folder.number)
        assert root is not None
        assert below is not None
        return root.mtime_ns, below.mtime_ns

    before = moments()
    tree.create(node(b"file"))
    assert moments()[0] > before[0]
    assert moments()[1] == before[1]
    before = moments()
    tree.rename(ROOT_NODE, b"file", folder.number, b"file", replace=True)
    assert moments() > before
    assert moments()[1] > before[1]
    before = moments()
    tree.unlink(folder.number, b"file")
    assert moments()[1] > before[1]
    tree.close()


def test_a_mad_guest_is_bounded(tree: NodeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are unlinked but not dropped count, because they cost memory too."""
    monkeypatch.setattr("backpoint_fusefs.live.node_tree.NODES_MAX", 4)
    for name in (b"a", b"b", b"c"):
        tree.create(node(name))
    gone = tree.unlink(ROOT_NODE, b"a")
    assert _errno(lambda: tree.create(node(b"d"))) == errno.ENOSPC
    tree.drop(gone.number)
    assert tree.create(node(b"d")).number > gone.number


def test_numbers_end_before_inodes_do(tree: NodeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that has used them all creates nothing more."""
    monkeypatch.setattr("backpoint_fusefs.live.node_tree.NUMBER_MAX", 2)
    tree.create(node(b"a"))
    assert _errno(lambda: tree.create(node(b"b"))) == errno.ENOSPC


def test_read_only(tree: NodeTree) -> None:
    """Names stay as they are; what was written before is still saved, what is gone still goes."""
    file = tree.create(node(b"a"))
    gone = tree.unlink(ROOT_NODE, b"a")
    tree.create(node(b"b"))
    tree.touch(file.number, 5)
    tree.read_only = True
    for work in (
        lambda: tree.create(node(b"c")),
        lambda: tree.unlink(ROOT_NODE, b"b"),
        lambda: tree.rename(ROOT_NODE, b"b", ROOT_NODE, b"c", replace=True),
        lambda: tree.change(tree.children(ROOT_NODE)[0]),
    ):
        assert _errno(work) == errno.EROFS
    assert [found.name for found in tree.children(ROOT_NODE)] == [b"b"]
    tree.save_times()
    tree.drop(gone.number)
    assert tree.unlinked() == []


def test_touched_while_renamed(tree: NodeTree) -> None:
    """A time that was noted while a change waited for the disk is not lost."""
    file = tree.create(node(b"a"))
    done = threading.Event()

    def touch() -> None:
        while not done.is_set():
            tree.touch(file.number, 1 << 61)

    thread = threading.Thread(target=touch)
    thread.start()
    for _ in range(20):
        tree.rename(ROOT_NODE, b"a", ROOT_NODE, b"b", replace=True)
        tree.rename(ROOT_NODE, b"b", ROOT_NODE, b"a", replace=True)
    done.set()
    thread.join()
    found = tree.node(file.number)
    assert found is not None
    assert found.mtime_ns == 1 << 61


def test_many_threads(tree: NodeTree) -> None:
    """Each change is whole, and readers see no name twice or missing."""
    tree.create(node(b"moving"))
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(sum(found.name in (b"moving", b"moved") for found in tree.linked()))

    def create(first: int) -> None:
        for number in range(first, first + 20):
            tree.create(node(str(number).encode()))

    threads = [threading.Thread(target=create, args=(first,)) for first in (0, 100, 200)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for _ in range(10):
        tree.rename(ROOT_NODE, b"moving", ROOT_NODE, b"moved", replace=False)
        tree.rename(ROOT_NODE, b"moved", ROOT_NODE, b"moving", replace=False)
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert set(seen) == {1}
    assert len(tree.children(ROOT_NODE)) == 61


_CREATOR = """
import sys
from pathlib import Path
from backpoint_fusefs.live.node_tree import ROOT_NODE, LiveNode, NodeTree, NodeType
tree = NodeTree(Path(sys.argv[1]))
for number in range(100_000):
    tree.create(LiveNode(0, NodeType.FILE, ROOT_NODE, b"%d" % number, 0, 0, 0, 0, 0))
    print(flush=True)
"""


def test_killed(tmp_path: Path) -> None:
    """What a process was told is done is there after it was killed."""
    path = tmp_path / "names.sqlite"
    command = [sys.executable, "-c", _CREATOR, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as creator:
        assert creator.stdout is not None
        told = len([creator.stdout.readline() for _ in range(50)])
        creator.kill()
        told += creator.stdout.read().count(b"\n")
    tree = NodeTree(path)
    assert len(tree.children(ROOT_NODE)) in (told, told + 1)
    tree.close()


def test_full_disk(tmp_path: Path) -> None:
    """Is ENOSPC; the tree stays as it was, and goes on when there is room."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "backpoint-test", place], check=True)
    try:
        tree = NodeTree(place / "names.sqlite")
        tree.create(node(b"first"))
        filler = place / "filler"
        with filler.open("wb", buffering=0) as file:
            while _errno(partial(file.write, bytes(4096))) == 0:
                pass
        made = 1
        while (found := _errno(partial(tree.create, node(str(made).encode() * 50)))) == 0:
            made += 1
        assert found == errno.ENOSPC
        assert len(tree.children(ROOT_NODE)) == made
        filler.unlink()
        tree.create(node(b"after"))
        tree.close()
        again = NodeTree(place / "names.sqlite")
        assert len(again.children(ROOT_NODE)) == made + 1
        again.close()
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM nodes WHERE number = 1",
        "UPDATE nodes SET type = 'file' WHERE number = 1",
        "UPDATE nodes SET parent = 99 WHERE number = 3",
        "UPDATE nodes SET parent = 3 WHERE number = 2",
        "UPDATE nodes SET parent = 0 WHERE number = 2",
        "UPDATE nodes SET parent = 4 WHERE number = 3",
        "UPDATE nodes SET name = x'2f' WHERE number = 3",
        "UPDATE nodes SET name = x'6672' WHERE number IN (4, 5)",
        "UPDATE nodes SET name = 'text' WHERE number = 3",
        "UPDATE nodes SET name = zeroblob(300) WHERE number = 3",
        "UPDATE nodes SET type = 'odd' WHERE number = 3",
        "UPDATE nodes SET type = 'disk' WHERE number = 4",
        "UPDATE nodes SET type = 'disk', disk = 1 WHERE number > 3",
        "UPDATE nodes SET mode = 65536 WHERE number = 3",
        "UPDATE nodes SET mtime_ns = 1e300 WHERE number = 3",
        "UPDATE nodes SET number = 1000000000 WHERE number = 4",
        "UPDATE nodes SET number = -3 WHERE number = 4",
        "UPDATE nodes SET type = CAST(x'ff' AS TEXT) WHERE number = 4",
        "UPDATE sqlite_sequence SET seq = 'x'",
        "DELETE FROM sqlite_sequence",
        "DROP TABLE nodes",
        "ALTER TABLE nodes ADD COLUMN more",
        "CREATE TRIGGER t AFTER INSERT ON nodes BEGIN DELETE FROM nodes; END",
        "PRAGMA user_version = 2",
        "PRAGMA application_id = 5",
    ],
)
def test_a_database_that_lies(tmp_path: Path, statement: str) -> None:
    """Is damage, told as such, however it came about."""
    path = tmp_path / "names.sqlite"
    tree = NodeTree(path)
    tree.create(node(b"d", kind=NodeType.FOLDER))
    tree.create(node(b"e", 2, NodeType.FOLDER))
    tree.create(node(b"f", 3))
    tree.create(node(b"g", 3))
    tree.close()
    liar = sqlite3.connect(path)
    liar.execute(statement)
    liar.commit()
    liar.close()
    with pytest.raises(SessionDamaged):
        NodeTree(path)


@pytest.mark.parametrize("content", [b"x", b"SQLite format 3\0" + bytes(84), bytes(8192)])
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    """Is damage too, and is left as it is."""
    path = tmp_path / "names.sqlite"
    path.write_bytes(content)
    with pytest.raises(SessionDamaged):
        NodeTree(path)
    assert path.read_bytes() == content


def test_a_link_is_no_database(tmp_path: Path) -> None:
    """Nobody is led elsewhere."""
    NodeTree(tmp_path / "real").close()
    (tmp_path / "names.sqlite").symlink_to(tmp_path / "real")
    with pytest.raises(SessionDamaged):
        NodeTree(tmp_path / "names.sqlite")


def test_random_damage(tmp_path: Path) -> None:
    """Bytes turned anywhere: a session that opens, or damage; never anything else."""
    path = tmp_path / "names.sqlite"
    tree = NodeTree(path)
    for number in range(30):
        tree.create(node(str(number).encode()))
    tree.close()
    whole = path.read_bytes()
    told = 0
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes((whole[at] ^ 0x55,)) + whole[at + 1 :])
        try:
            NodeTree(path).close()
        except SessionDamaged:
            told += 1
        for beside in tmp_path.glob("names.sqlite-*"):
            beside.unlink()
    assert told > 0
