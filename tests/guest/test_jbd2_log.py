"""Which transactions of a journal count: as the kernel decides it, also in a damaged log."""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeFacts
from backpoint_fusefs.guest.parsers.ext.ext_filesystem import open_ext
from guest_disks.tool import run
from guest_trees.crash_image import crash_image, settle, write_durably
from guest_trees.disks import make_image, mounted_image
from guest_trees.file_image import FileImage
from guest_trees.walk import Tree, walk_folder, walk_parser

_MIB = 1 << 20
_BLOCK = 4096
_MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _REVOKE = 1, 2, 5
_PLAIN = ("-O", "^metadata_csum")


class _LogBlock(NamedTuple):
    """number: in the journal. at: its byte in the image."""

    number: int
    at: int
    kind: int
    sequence: int


def _places(path: Path) -> list[int]:
    """The byte in the image of each of the journal's blocks."""
    # -c: without the bitmaps, which may be behind.
    return [int(block) * _BLOCK for block in run("debugfs", "-cR", "blocks <8>", path).split()]


def _log(path: Path) -> tuple[int, list[_LogBlock]]:
    """The block where the log starts, and the control blocks of its transactions in order."""
    places = _places(path)
    with path.open("rb") as file:
        heads = [struct.unpack(">8I", os.pread(file.fileno(), 32, at)) for at in places]
    first, start = heads[0][6:]
    found = [
        _LogBlock(number, places[number], kind, sequence)
        for number, (magic, kind, sequence, *_) in enumerate(heads)
        if magic == _MAGIC and number and sequence >= first
    ]
    return start, sorted(found, key=lambda block: (block.sequence, block.kind == _COMMIT))


def _patch(path: Path, at: int, content: bytes) -> Path:
    """A copy of the image, changed."""
    copy = path.with_name("patched")
    run("cp", "--sparse=always", path, copy)
    with copy.open("r+b") as file:
        file.seek(at)
        file.write(content)
    return copy


def _after_recovery(path: Path) -> Tree:
    """What the kernel shows when it has replayed the journal, of a copy."""
    copy = path.with_name("recovered")
    run("cp", "--sparse=always", path, copy)
    with mounted_image(copy, "ext4", options=["noatime"]) as top:
        return walk_folder(top)


def _before_recovery(path: Path) -> Tree:
    with mounted_image(path, "ext4", read_only=True) as top:
        return walk_folder(top)


def _ours(path: Path) -> tuple[Tree, VolumeFacts]:
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        return walk_parser(filesystem, image), filesystem.facts


def _as_on_disk(path: Path) -> VolumeFacts:
    """Of a filesystem whose names are those on the disk, without what the journal holds.

    Only the names: what they lead to may be anything, as the kernel writes back when it likes.
    """
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        found = {entry.name for entry in filesystem.entries(filesystem.root)}
    with mounted_image(path, "ext4", read_only=True) as top:
        assert found == {os.fsencode(name) for name in os.listdir(top)}
    return filesystem.facts


def _crashed(
    folder: Path,
    change: Callable[[Path], None],
    options: Sequence[str] = (),
    mount: Sequence[str] = (),
) -> Path:
    make_image(folder / "image", "ext4", 64 * _MIB, ("-J", "size=4", *options))
    mount = ("noatime", "commit=300", *mount)
    return crash_image(folder / "image", "ext4", folder / "crashed", change, mount)


def _three_commits(top: Path) -> None:
    settle(top)
    for number in range(3):
        write_durably(top / f"{number}", b"durable")


def test_a_log_that_wraps_around(tmp_path: Path) -> None:
    """Old transactions lie behind the newest one; they are not taken for its successors."""

    def change(top: Path, writes: int) -> None:
        chance = random.Random(2)
        for number in range(writes):
            write_durably(top / f"{number % 7}", chance.randbytes(300_000))

    def wraps(path: Path) -> bool:
        start, log = _log(path)
        return bool(log) and log[-1].number < start

    # Where in the ring the kernel empties the log, memory and others' syncs decide too.
    tries = (
        _crashed(tmp_path, partial(change, writes=writes), mount=("data=journal",))
        for writes in range(15, 60, 2)
    )
    path = next(path for path in tries if wraps(path))
    assert _ours(path)[0] == _after_recovery(path)


def test_revoked_blocks(tmp_path: Path) -> None:
    """Blocks of folders that were logged and removed, and became content, are not written back;
    were they not revoked, they would be."""

    def change(top: Path) -> None:
        for number in range(30):
            (top / f"{number}").mkdir()
            for below in range(40):
                (top / f"{number}" / f"{below}".zfill(200)).write_bytes(b"")
        settle(top)
        for number in range(30):
            os.rename(top / f"{number}" / "0".zfill(200), top / f"{number}" / "1".zfill(200))
        write_durably(top / "first", b"1")
        for number in range(30):
            shutil.rmtree(top / f"{number}")
        write_durably(top / "second", b"2")
        # All the free blocks, so those of the folders too.
        with (top / "content").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"c" * _BLOCK)
        write_durably(top / "content beside", b"")

    path = _crashed(tmp_path, change, ("-m", "0", *_PLAIN))
    expected = _after_recovery(path)
    assert _ours(path)[0] == expected
    for block in _log(path)[1]:
        if block.kind == _REVOKE:
            # A list of no blocks.
            _patch(path, block.at + 12, (16).to_bytes(4, "big")).rename(path)
    unrevoked = _after_recovery(path)
    assert unrevoked[b"content"] != expected[b"content"]
    assert _ours(path)[0] == unrevoked


@pytest.mark.parametrize("options", [(), _PLAIN], ids=["checksums", "none"])
def test_an_interrupted_commit(tmp_path: Path, options: Sequence[str]) -> None:
    """The transaction whose commit did not reach the disk does not count, those before it do."""
    path = _crashed(tmp_path, _three_commits, options)
    last = _log(path)[1][-1]
    assert last.kind == _COMMIT
    path = _patch(path, last.at, bytes(_BLOCK))
    found, facts = _ours(path)
    assert found == _after_recovery(path)
    assert found.keys() == {b"", b"0", b"1", b"lost+found"}
    assert not facts.recovery


def test_a_corrupt_commit(tmp_path: Path) -> None:
    """The kernel refuses to mount; we show what is on the disk, and say so."""
    path = _crashed(tmp_path, _three_commits)
    commit = next(block for block in _log(path)[1] if block.kind == _COMMIT)
    path = _patch(path, commit.at + 50, b"\xff" * 4)
    with pytest.raises(RuntimeError):
        _after_recovery(path)
    facts = _as_on_disk(path)
    assert "wrong checksum" in facts.recovery
    assert not facts.replayed


def test_a_corrupt_copy(tmp_path: Path) -> None:
    """The kernel refuses to mount; we refuse what this block is needed for."""
    path = _crashed(tmp_path, _three_commits, mount=("data=journal",))
    _, log = _log(path)
    found = bytearray(path.read_bytes())
    content = found.index(b"durable".ljust(_BLOCK, b"\0"), log[0].at)
    path = _patch(path, content, b"forged")
    with pytest.raises(RuntimeError):
        _after_recovery(path)
    with closing(FileImage(path)) as image:
        filesystem = open_ext(image)
        by_name = {entry.name: entry.file for entry in filesystem.entries(filesystem.root)}
        refused = []
        for name in (b"0", b"1", b"2"):
            try:
                list(filesystem.extents(by_name[name]))
            except GuestDamaged:
                refused.append(name)
        assert len(refused) == 1
        with pytest.raises(GuestDamaged):
            filesystem.read(by_name[refused[0]], 0, 100)


def test_a_log_without_end(tmp_path: Path) -> None:
    """A ring full of empty lists of revoked blocks, all of one transaction, is left."""
    path = _crashed(tmp_path, _three_commits, _PLAIN)
    _, log = _log(path)
    forged = struct.pack(">IIII", _MAGIC, _REVOKE, log[0].sequence, 16).ljust(_BLOCK, b"\0")
    for place in _places(path)[1:]:
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), forged, place)
    assert "no end" in _as_on_disk(path).recovery


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions_of_checksums(tmp_path: Path, version: int) -> None:
    """The kernel replays version 2 too, which it no longer writes, but debugfs does."""
    path, content = tmp_path / "image", tmp_path / "content"
    make_image(path, "ext4", 16 * _MIB, _PLAIN)
    with mounted_image(path, "ext4") as top:
        (top / "file").write_bytes(b"old" * 3_000)
    block = run("debugfs", "-R", "bmap file 1", path).strip()
    # Debugfs escapes as the kernel does.
    content.write_bytes(_MAGIC.to_bytes(4, "big") + b"new" * 1_364)
    checksums = f"-c -v {version}" if version > 1 else ""
    requests = f"journal_open {checksums}\njournal_write -b {block} {content}\njournal_close\n"
    run("debugfs", "-w", "-f", "/dev/stdin", path, text=requests)
    found, facts = _ours(path)
    assert facts == VolumeFacts(replayed=1)
    assert found == _after_recovery(path)
    assert found != _before_recovery(path)
