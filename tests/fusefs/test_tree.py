"""The tree as values: names, links, and numbers that lead back to what they stand for."""

from __future__ import annotations

import hashlib
import math
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs import inodes
from backpoint_fusefs.inodes import BY_DATE, ROOT, VMS, take_apart
from backpoint_fusefs.listing import Listing, changed_names, changed_vms
from backpoint_fusefs.node import Node, NodeKind
from backpoint_fusefs.point_folder import PointFolder
from backpoint_fusefs.tree import Tree
from backpoint_repo.catalog import PointSummary, summarize
from backpoint_repo.format import HOLE
from backpoint_repo.point import ConfigFile, Disk, Point

NOON = 1795176000.0  # 2026-11-20T12-00-00Z


def _point(vm: str, time: float, number: int = 0, disks: int = 1) -> Point:
    point_id = hashlib.blake2b(f"{vm}{time}{number}".encode("utf-8", "surrogatepass")).digest()[:16]
    some = tuple(Disk(f"disk{at}", 1000 * (at + 1), HOLE, 0, "") for at in range(disks))
    files = (ConfigFile("a/b.vmx", 0, ()), ConfigFile("point.json", 0, ()))
    return Point(point_id, vm, time, float(number), "", some, files)


def _tree(*points: Point) -> Tree:
    summaries = [summarize(point) for point in points]
    order = sorted(summaries, key=lambda p: (p.vm, p.time, p.created, p.point_id))
    return Tree(Listing(order), changed=NOON)


def _walk(tree: Tree, folder: Node, path: str = "") -> dict[str, Node]:
    found = {}
    for name, node in tree.entries(folder):
        found[f"{path}/{name.decode()}"] = node
        if node.kind is NodeKind.FOLDER and tree.point_at(node.inode) is None:
            found |= _walk(tree, node, f"{path}/{name.decode()}")
    return found


def _root(tree: Tree) -> Node:
    root = tree.node(ROOT)
    assert root is not None
    return root


def test_the_tree_of_two_vms() -> None:
    early, late = _point("web", NOON), _point("web", NOON + 90_000)
    tree = _tree(early, late, _point("a/b", NOON))
    paths = _walk(tree, _root(tree))
    assert sorted(paths) == [
        "/README.txt",
        "/by-date",
        "/by-date/2026-11-20",
        "/by-date/2026-11-20/a%2Fb",
        "/by-date/2026-11-20/web",
        "/by-date/2026-11-21",
        "/by-date/2026-11-21/web",
        "/vms",
        "/vms/a%2Fb",
        "/vms/a%2Fb/2026-11-20T12-00-00Z",
        "/vms/a%2Fb/latest",
        "/vms/web",
        "/vms/web/2026-11-20T12-00-00Z",
        "/vms/web/2026-11-21T13-00-00Z",
        "/vms/web/latest",
    ]
    assert paths["/vms/web/latest"].target == b"2026-11-21T13-00-00Z"
    link = paths["/by-date/2026-11-20/web"].target.decode()
    assert str(PurePosixPath(link)) == "../../vms/web/2026-11-20T12-00-00Z"
    assert paths["/vms"].subfolders == 2
    assert paths["/vms/web"].subfolders == 2


_POINTS = st.lists(
    st.tuples(
        st.sampled_from(["web", "a/b", ".", "x" * 300]),
        st.one_of(
            st.floats(NOON, NOON + 3),
            st.floats(0, 4e9),
            st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e300]),
        ),
    ),
    max_size=30,
)


@given(_POINTS)
def test_every_number_leads_back_to_its_node_and_every_name_is_found(
    rows: list[tuple[str, float]],
) -> None:
    sane = [(vm, 0.0 if math.isnan(time) else time) for vm, time in rows]
    tree = _tree(*(_point(vm, time, at) for at, (vm, time) in enumerate(sane)))
    paths = _walk(tree, _root(tree))
    assert len({node.inode for node in paths.values()}) == len(paths)
    assert sum(tree.point_at(node.inode) is not None for node in paths.values()) == len(sane)
    for path, node in paths.items():
        assert tree.node(node.inode) == node
        folder = tree.node(node.folder)
        assert folder is not None
        assert tree.find(folder, path.rpartition("/")[2].encode()) == node
        if node.kind is NodeKind.LINK:
            target = [part for part in node.target.split(b"/") if part != b".."]
            assert any(other.endswith("/" + target[-1].decode()) for other in paths)


def test_points_of_one_second_are_told_apart_by_their_ids() -> None:
    points = [_point("web", NOON + at / 10, at) for at in range(3)]
    tree = _tree(*points)
    names = [name.decode() for name, _ in tree.listing.of_vm("web")]
    stamp = "2026-11-20T12-00-00Z"
    assert names == [
        stamp,
        f"{stamp}~{points[1].point_id.hex()[:8]}",
        f"{stamp}~{points[2].point_id.hex()[:8]}",
    ]
    assert tree.listing.name_of(summarize(points[2])).decode() == names[2]


def test_a_point_whose_number_is_taken_is_not_shown() -> None:
    first = summarize(_point("web", NOON, 1))
    clash = first._replace(point_id=first.point_id[:6] + bytes(10), created=9.0)
    for order in ([first, clash], [clash, first]):
        listing = Listing(order)
        assert listing.points == [first]
        assert listing.shadowed == [clash]


def test_unknown_numbers_lead_nowhere() -> None:
    tree = _tree(_point("web", NOON))
    for inode in (5, 2**64 - 1, BY_DATE + (4 << 16), VMS | 0x8000, 0x5000, (77 << 16) | 2):
        assert tree.node(inode) is None


def test_numbers_do_not_depend_on_what_else_there_is() -> None:
    point = _point("web", NOON)
    small, large = _tree(point), _tree(point, _point("other", NOON), _point("web", NOON - 9e6))
    known = {path: node.inode for path, node in _walk(small, _root(small)).items()}
    assert known.items() <= {p: n.inode for p, n in _walk(large, _root(large)).items()}.items()
    assert ROOT == 1


def test_a_points_folder_names_its_disks_and_files() -> None:
    folder = PointFolder(_point("web", NOON, disks=2))
    entries = dict(folder.entries())
    assert set(entries) >= {b"disk0.vmdk", b"disk1-flat.vmdk", b"point.json", b"a%2Fb.vmx"}
    # The VM's own point.json under another name, and the guest's files.
    assert len(entries) == 8
    assert entries[b"guest"].kind is NodeKind.FOLDER
    for name, node in entries.items():
        role = take_apart(node.inode).role
        assert folder.node(role) == folder.find(name) == node
    assert entries[b"disk1-flat.vmdk"].size == 2000
    assert folder.disk_number(inodes.DISK_FLAT + 1) == 1
    assert folder.disk_number(inodes.POINT_JSON) is None
    assert folder.hidden == 0


@pytest.mark.parametrize("time", [math.nan, math.inf, -5.0])
def test_a_point_of_an_impossible_time_has_a_folder(time: float) -> None:
    point = _point("web", time)
    assert b'"id"' in PointFolder(point).source(inodes.POINT_JSON)  # type: ignore[operator]
    summary: PointSummary = summarize(point)
    assert len(Listing([summary]).of_vm("web")) == 1


def test_names_that_another_point_takes_over_are_told() -> None:
    first, second, other = _point("web", NOON, 0), _point("web", NOON, 1), _point("db", NOON)
    before, after = _tree(first, second, other).listing, _tree(second, other).listing
    assert changed_vms(before, after) == {"web"}
    stamp = b"2026-11-20T12-00-00Z"
    suffixed = stamp + b"~" + second.point_id.hex()[:8].encode()
    assert changed_names(before, after, "web") == [stamp, suffixed]
    assert changed_names(after, _tree(other).listing, "web") == [stamp]
    assert changed_names(_tree(other).listing, after, "web") == []
