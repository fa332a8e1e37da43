"""What a session's disk keeps in memory and on disk: sets of blocks, records, snapshots, a log."""

from __future__ import annotations

import secrets
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK, LEAF_BLOCKS, LEAF_BYTES, BlockSet
from backpoint_fusefs.live.overlay.block_set_form import decode_blocks, encode_blocks
from backpoint_fusefs.live.overlay.log_record import DiskSizes
from backpoint_fusefs.live.overlay.map_snapshot import MapSnapshot, read_snapshot, write_snapshot
from backpoint_fusefs.live.overlay.overlay_disk import CutDisk, OverlayDisk
from backpoint_fusefs.live.overlay.write_ahead_log import WriteAheadLog
from fusefs.live.overlay_bases import BytesBase, HugeBase, numbered

_EDGE = 3 * LEAF_BLOCKS
_NUMBERS = st.one_of(
    st.integers(0, _EDGE),
    st.builds(
        lambda leaf, by: max(0, leaf * LEAF_BLOCKS + by), st.integers(0, 3), st.integers(-3, 3)
    ),
)
_RANGES = st.one_of(
    st.tuples(_NUMBERS, st.integers(1, 5)),
    st.tuples(_NUMBERS, st.integers(1, 2 * LEAF_BLOCKS)),
    st.just((LEAF_BLOCKS, LEAF_BLOCKS)),
)
_SIZES = DiskSizes(50 * BLOCK, 40 * BLOCK)
_SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _blocks(*ranges: tuple[int, int]) -> BlockSet:
    blocks = BlockSet()
    for first, count in ranges:
        blocks.add(first, first + count)
    return blocks


def _numbers(blocks: BlockSet) -> set[int]:
    return {number for first, end in blocks.held_runs() for number in range(first, end)}


@given(st.lists(_RANGES, max_size=20), _NUMBERS, _RANGES)
def test_a_set_of_blocks_is_a_set_of_numbers(
    ranges: list[tuple[int, int]], cut: int, asked: tuple[int, int]
) -> None:
    """Adding, taking away from a number on, counting and asking, against Python's own set."""
    blocks, plain = (
        _blocks(*ranges),
        {n for first, count in ranges for n in range(first, first + count)},
    )
    assert _numbers(blocks) == plain
    blocks.clear_from(cut)
    plain = {number for number in plain if number < cut}
    assert _numbers(blocks) == plain
    assert blocks.count(1 << 40) == len(plain)
    assert blocks.end() == max(plain, default=-1) + 1
    first, end = asked[0], sum(asked)
    runs = list(blocks.runs(first, end))
    assert [run.first for run in runs] == [first, *(run.end for run in runs[:-1])]
    assert runs[-1].end == end
    assert all((n in plain) == run.held for run in runs for n in range(run.first, run.end))
    assert blocks.holds(first, end) == plain.issuperset(range(first, end))


@given(st.lists(_RANGES, max_size=20), st.lists(_RANGES, max_size=20))
def test_a_union_is_a_union_and_a_copy_is_independent(
    some: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    """Of two sets of blocks, full leaves among them."""
    both, before = _blocks(*some), _blocks(*some).copy()
    both.add_all(_blocks(*others))
    assert _numbers(both) == _numbers(_blocks(*some, *others))
    copy = both.copy()
    both.add(0, _EDGE)
    assert _numbers(copy) == _numbers(before) | _numbers(_blocks(*others))


@given(st.lists(_RANGES, max_size=30), st.booleans())
def test_a_set_of_blocks_comes_back_from_its_form(
    ranges: list[tuple[int, int]], scattered: bool
) -> None:
    """Runs, full leaves and bitmaps; cut short anywhere, or with a limit, it is refused."""
    blocks = _blocks(*ranges)
    if scattered:
        blocks.set_leaf(5, secrets.token_bytes(LEAF_BYTES))
    form = encode_blocks(blocks)
    assert _numbers(decode_blocks(form, blocks.end())) == _numbers(blocks)
    for wrong, end in (
        (form[:-1], blocks.end()),
        (form + b"\0", blocks.end()),
        (form, blocks.end() - 1),
    ):
        if end >= 0:
            with pytest.raises(ValueError, match=r"set of blocks|leaves"):
                decode_blocks(wrong, end)


@given(st.binary(max_size=200))
def test_hostile_forms_are_refused_or_stay_inside_the_disk(form: bytes) -> None:
    """Whatever the bytes: a set of blocks of the disk, or ValueError."""
    try:
        blocks = decode_blocks(form, 5000)
    except ValueError:
        return
    assert blocks.end() <= 5000


@_SLOW
@given(st.integers(0, 1 << 40), st.integers(0, 7))
def test_a_changed_byte_of_a_map_is_seen(tmp_path: Path, at: int, bit: int) -> None:
    """Any byte, any bit."""
    path = tmp_path / "1.map"
    blocks = _blocks((3, 9), (17, 1))
    snapshot = MapSnapshot(secrets.token_bytes(32), 7, 2, _SIZES, blocks)
    length = write_snapshot(path, snapshot)
    again = read_snapshot(path)
    assert (again.identity, again.generation, again.cut, again.sizes) == (
        snapshot.identity,
        7,
        2,
        _SIZES,
    )
    assert _numbers(again.held) == _numbers(blocks)
    _flip(path, at % length, bit)
    with pytest.raises(SessionDamaged):
        read_snapshot(path)


@_SLOW
@given(st.integers(0, 1 << 40), st.integers(0, 7), st.integers(1, 6))
def test_a_changed_byte_of_a_log_is_seen(tmp_path: Path, at: int, bit: int, count: int) -> None:
    """In the last record it is a torn end; in an earlier one, damage that is told."""
    path = tmp_path / "1.log"
    path.unlink(missing_ok=True)
    log = WriteAheadLog.create(path, secrets.token_bytes(32))
    for number in range(count):
        assert log.append(_SIZES, encode_blocks(_blocks((number, 1))), [bytes([number]) * BLOCK])
    assert len(list(WriteAheadLog.open(path).records(0))) == count
    # Each record is a header and a block: two blocks of the log, the second not quite full.
    used = BLOCK + 40
    record, within = divmod(at % (count * used), used)
    _flip(path, BLOCK + record * 2 * BLOCK + within, bit)
    if record == count - 1:
        assert len(list(WriteAheadLog.open(path).records(0))) == count - 1
    else:
        with pytest.raises(SessionDamaged, match="middle"):
            list(WriteAheadLog.open(path).records(0))


def test_records_of_an_earlier_generation_count_no_more(tmp_path: Path) -> None:
    """A log begun anew over longer records ends where its own records end."""
    log = WriteAheadLog.create(tmp_path / "1.log", secrets.token_bytes(32))
    for _ in range(5):
        assert log.append(_SIZES, encode_blocks(_blocks((1, 3))), [bytes(3 * BLOCK)])
    log.begin_anew(1)
    assert log.append(_SIZES, encode_blocks(_blocks((2, 1))), None)
    again = WriteAheadLog.open(tmp_path / "1.log")
    assert [head.place for head, _ in again.records(1)] == [(1, 0)]
    assert list(WriteAheadLog.open(tmp_path / "1.log").records(2)) == []


def test_a_log_grows_to_its_limit_and_then_says_that_it_is_full(tmp_path: Path) -> None:
    """From a few hundred KiB to 16 MiB; the record that does not fit changes nothing."""
    path = tmp_path / "1.log"
    log = WriteAheadLog.create(path, secrets.token_bytes(32))
    assert path.stat().st_size == 256 << 10
    form, content = encode_blocks(_blocks((0, 255))), [bytes(255 * BLOCK)]
    written = 0
    while log.append(DiskSizes(255 * BLOCK, 0), form, content):
        written += 1
    assert written == 15
    assert path.stat().st_size == 16 << 20
    assert len(list(WriteAheadLog.open(path).records(0))) == written


@_SLOW
@given(
    st.sampled_from(["1.map", "1.log", "1.data", "gone", "2.map"]),
    st.binary(max_size=300),
    st.booleans(),
)
def test_strange_files_in_a_disks_folder_are_told(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes, is_written: bool
) -> None:
    """Where anything is not ours the disk does not open; data never synced is not looked at."""
    folder = tmp_path_factory.mktemp("disk") / "0"
    base = BytesBase(numbered(10 * BLOCK))
    folder.mkdir()
    if is_written:
        disk = OverlayDisk(folder, base)
        disk.write(0, b"x" * 100)
        disk.sync()
        disk.close()
    (folder / name).write_bytes(content)
    if name == "1.data" and not is_written:
        assert bytes(OverlayDisk(folder, base).read(0, base.size)) == base.content
        assert not (folder / name).exists()
    elif name == "1.data":
        # Its content is in the log still.
        assert bytes(OverlayDisk(folder, base).read(0, 100)) == b"x" * 100
    else:
        with pytest.raises(SessionDamaged):
            OverlayDisk(folder, base)
        if name != "1.log":
            with pytest.raises(SessionDamaged):
                CutDisk(folder, base, 0, 1)


@pytest.mark.parametrize("lost", ["1.data", "1.log", "short"])
def test_a_lost_file_of_a_layer_is_told(tmp_path: Path, lost: str) -> None:
    """No zeros and no old content in place of what was synced."""
    base = HugeBase(1 << 30)
    disk = OverlayDisk(tmp_path / "0", base)
    disk.write(0, bytes(range(256)) * 4096)
    disk.sync()
    disk.close()
    path = tmp_path / "0" / lost
    if lost == "short":
        (tmp_path / "0" / "1.data").write_bytes(b"short")
    else:
        path.unlink()
    with pytest.raises(SessionDamaged if lost != "1.log" else (SessionDamaged, AssertionError)):
        assert bytes(OverlayDisk(tmp_path / "0", base).read(0, 1)) == b"\0"


def _flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)
