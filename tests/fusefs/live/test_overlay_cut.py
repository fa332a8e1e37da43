"""Cuts of a session's disk: what whoever stores one sees, while the disk is written on."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk, OverlayDisk
from backpoint_repo.errors import SourceError
from fusefs.live.overlay_bases import BytesBase, numbered

_SIZE = 64 * BLOCK


def _disk(folder: Path) -> tuple[OverlayDisk, BytesBase]:
    base = BytesBase(numbered(_SIZE))
    return OverlayDisk(folder, base), base


def _content(disk: CutDisk | OverlayDisk) -> bytes:
    if isinstance(disk, OverlayDisk):
        return bytes(disk.read(0, disk.size))
    whole = bytearray(disk.size)
    disk.read_into(0, memoryview(whole))
    return bytes(whole)


def test_several_cuts_pile_up_and_each_is_what_it_was(tmp_path: Path) -> None:
    """No commit came through: all layers are read through, here and by who stores any of them."""
    disk, base = _disk(tmp_path)
    cuts = []
    for cut in range(1, 5):
        disk.write(cut * 10_000, bytes([cut]) * 15_000)
        disk.cut(cut)
        cuts.append(_content(disk))
    disk.write(0, b"after all")
    disk.sync()
    for cut, content in enumerate(cuts, 1):
        assert _content(CutDisk(tmp_path, base, 0, cut)) == content
    disk.close()
    again = OverlayDisk(tmp_path, base)
    assert _content(again) == b"after all" + cuts[-1][9:]
    upper = CutDisk(tmp_path, BytesBase(cuts[1]), 2, 4)
    assert _content(upper) == cuts[3]
    first = 30_000 // BLOCK * BLOCK
    end = -(-55_000 // BLOCK) * BLOCK
    assert upper.written() == [(first, end - first)]


def test_a_cut_stays_while_the_disk_is_written_and_moved_to_the_new_point(tmp_path: Path) -> None:
    """What is open stays, also when its layers are deleted; whoever comes later is told."""
    disk, base = _disk(tmp_path)
    disk.write(5000, b"kept" * 2000)
    disk.cut(1)
    before = _content(disk)
    cut = CutDisk(tmp_path, base, 0, 1)
    disk.write(5000, b"new" * 5000)
    disk.sync()
    assert _content(cut) == before
    disk.rebase(BytesBase(before), 1)
    disk.write(0, b"newer")
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: _content(cut), range(20))) == {before}
    with pytest.raises(SessionDamaged, match="commit again"):
        CutDisk(tmp_path, base, 0, 1)
    assert _content(CutDisk(tmp_path, BytesBase(before), 1, 1)) == before
    cut.close()
    with pytest.raises(SourceError, match="closed"):
        cut.read_into(0, memoryview(bytearray(1)))


def test_layers_that_are_gone_are_not_taken_for_never_written(tmp_path: Path) -> None:
    """A session that counts on an older point than its layers were deleted for does not open."""
    disk, base = _disk(tmp_path)
    disk.write(0, b"x")
    disk.cut(3)
    disk.rebase(BytesBase(_content(disk)), 3)
    disk.close()
    with pytest.raises(SessionDamaged, match="cut 3"):
        OverlayDisk(tmp_path, base, 2)
    assert _content(OverlayDisk(tmp_path, base, 3)) == base.content


def test_a_disk_first_written_after_a_cut_is_not_in_it(tmp_path: Path) -> None:
    """Also where the process ended between the cut and the write, and the layer's number is low."""
    disk, base = _disk(tmp_path)
    disk.cut(3)
    disk.close()
    assert list(tmp_path.iterdir()) == []
    disk = OverlayDisk(tmp_path, base)
    disk.write(0, b"later")
    disk.sync()
    assert CutDisk(tmp_path, base, 0, 3).written() == []
    disk.cut(4)
    assert _content(CutDisk(tmp_path, base, 0, 3)) == base.content
    assert CutDisk(tmp_path, base, 0, 4).written() == [(0, BLOCK)]
    disk.rebase(base, 3)
    assert disk.read(0, 5) == b"later"
    with pytest.raises(ValueError, match="later one"):
        disk.cut(3)


def test_what_a_cut_tells_as_written_is_all_that_differs_and_little_more(tmp_path: Path) -> None:
    """In whole blocks, but at the disk's end; a part that was cut off and came back is in it."""
    disk, base = _disk(tmp_path)
    disk.resize(50 * BLOCK + 10)
    disk.resize(60 * BLOCK + 100)
    disk.write(7 * BLOCK + 5, b"x")
    disk.zero(20 * BLOCK, 4 * BLOCK)
    disk.cut(1)
    cut = CutDisk(tmp_path, base, 0, 1)
    assert cut.size == 60 * BLOCK + 100
    tail = (50 * BLOCK, 10 * BLOCK + 100)
    assert cut.written() == [(7 * BLOCK, BLOCK), (20 * BLOCK, 4 * BLOCK), tail]
    extents = list(cut.extents(0, cut.size))
    assert [extent.offset for extent in extents] == [
        0,
        *(e.offset + e.length for e in extents[:-1]),
    ]
    assert sum(extent.length for extent in extents) == cut.size
    holes = [extent for extent in extents if extent.hole]
    assert (20 * BLOCK, 4 * BLOCK, True) in holes
    assert holes[-1].offset + holes[-1].length == cut.size
    content = _content(cut)
    assert all(not any(content[hole.offset :][: hole.length]) for hole in holes)


_STORE = """
import sys
from pathlib import Path
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk
from fusefs.live.overlay_bases import BytesBase, numbered
cut = CutDisk(Path(sys.argv[1]), BytesBase(numbered(int(sys.argv[2]))), 0, 1)
print("open", flush=True)
sys.stdin.readline()
whole = bytearray(cut.size)
for offset, length in cut.written():
    cut.read_into(offset, memoryview(whole)[offset:offset + length])
sys.stdout.write(whole.strip(b"\\0").decode())
"""


def test_another_process_stores_a_cut(tmp_path: Path) -> None:
    """While this one writes, cuts again and moves to the new point."""
    disk, _ = _disk(tmp_path)
    text = b"as it was at the cut " * 1000
    disk.write(BLOCK, text.ljust(6 * BLOCK, b"\0"))
    disk.cut(1)
    child = subprocess.Popen(
        [sys.executable, "-c", _STORE, tmp_path, str(_SIZE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        disk.write(BLOCK, b"z" * 8 * BLOCK)
        disk.cut(2)
        disk.rebase(BytesBase(bytes(_SIZE)), 1)
        out, _ = child.communicate(b"\n", timeout=60)
    assert out == text
