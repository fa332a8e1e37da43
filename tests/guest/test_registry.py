"""Drive letters read from real registry hives: an empty one by its format, filled by hivex."""

from __future__ import annotations

import io
import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.registry.mounted_devices import (
    VALUE_MAX,
    read_mounted_devices,
)
from guest_trees.hives import (
    BIN,
    EMPTY,
    FIRST_AT,
    NOWHERE,
    ROOT_FLAGS,
    cell,
    filled,
    hive,
    key,
)

MBR_C = struct.pack("<IQ", 0x1234ABCD, 1 << 20)
GPT_D = b"DMIO:ID:" + bytes(range(16))
TEXT_E = "\\??\\SCSI#CdRom&Ven_VBOX".encode("utf-16-le")
DRIVES = {"\\DosDevices\\C:": MBR_C, "\\DosDevices\\D:": GPT_D, "\\DosDevices\\E:": TEXT_E}


@pytest.fixture(scope="session")
def windows_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some keys, and MountedDevices with what a machine gathers over the years."""
    volumes = {f"\\??\\Volume{{{number:08x}}}": TEXT_E for number in range(300)}
    keys: dict[str, dict[str, bytes]] = {f"ControlSet{number:03}": {} for number in range(40)}
    keys["MountedDevices"] = {**volumes, **DRIVES, "#{0001}": MBR_C}
    keys["Setup"] = {"\\DosDevices\\Z:": MBR_C}
    return filled(tmp_path_factory.mktemp("hive") / "SYSTEM", keys)


def test_drives_of_a_hive_written_by_hivex(windows_like: Path) -> None:
    """All values for drive letters of MountedDevices, and no others of it or of other keys."""
    with windows_like.open("rb") as file:
        assert read_mounted_devices(file) == DRIVES


def test_hivexget_reads_the_same(windows_like: Path) -> None:
    """An independent reader sees the same bytes in the same hive."""
    with windows_like.open("rb") as file:
        ours = read_mounted_devices(file)
    for name, data in ours.items():
        shown = subprocess.run(
            ["hivexget", str(windows_like), "\\MountedDevices", name],
            check=True,
            capture_output=True,
        )
        assert shown.stdout == data


def test_hive_without_the_key(tmp_path: Path) -> None:
    """An installation that has been generalised has none; that is no damage."""
    path = filled(tmp_path / "SYSTEM", {"Select": {"Current": b"\1\0\0\0"}})
    assert read_mounted_devices(io.BytesIO(path.read_bytes())) == {}
    assert read_mounted_devices(io.BytesIO(EMPTY)) == {}


def test_dirty_hive_is_read(windows_like: Path) -> None:
    """Sequence numbers that differ, as in a backup of a running Windows, hinder nothing."""
    content = bytearray(windows_like.read_bytes())
    content[4:8] = struct.pack("<I", 77)
    assert read_mounted_devices(io.BytesIO(bytes(content))) == DRIVES


def test_values_too_long_for_a_drive_are_left_out(tmp_path: Path) -> None:
    """A value larger than any drive's name is not carried about."""
    values = {"\\DosDevices\\C:": MBR_C, "\\DosDevices\\D:": bytes(VALUE_MAX + 1)}
    path = filled(tmp_path / "SYSTEM", {"MountedDevices": values})
    assert read_mounted_devices(io.BytesIO(path.read_bytes())) == {"\\DosDevices\\C:": MBR_C}


@pytest.mark.parametrize("content", [b"", b"regf", b"regf" + bytes(BIN), EMPTY[:BIN], bytes(9999)])
def test_what_is_no_hive_is_damage(content: bytes) -> None:
    """Empty, cut off and other files."""
    with pytest.raises(GuestDamaged):
        read_mounted_devices(io.BytesIO(content))


def test_lists_of_keys_that_contain_themselves_end() -> None:
    """An index that names itself 500 times over is 500 x 500 x ... steps, unless bounded."""
    root = key(b"ROOT", ROOT_FLAGS, 1, 0, 0, NOWHERE)
    index_at = FIRST_AT + len(root)
    root = key(b"ROOT", ROOT_FLAGS, 1, index_at, 0, NOWHERE)
    loop = cell(struct.pack("<2sH500I", b"ri", 500, *[index_at] * 500))
    with pytest.raises(GuestDamaged):
        read_mounted_devices(io.BytesIO(hive(root, loop)))


def test_lists_of_lists_end() -> None:
    """Six levels of 500 names of the next level each: 10^16 steps without any loop."""
    root = key(b"ROOT", ROOT_FLAGS, 1, 0, 0, NOWHERE)
    at = FIRST_AT + len(root)
    root = key(b"ROOT", ROOT_FLAGS, 1, at, 0, NOWHERE)
    levels = []
    for _ in range(6):
        at += 4 + 4 + 2000
        levels.append(cell(struct.pack("<2sH500I", b"ri", 500, *[at] * 500)))
    assert {len(level) for level in levels} == {2008}
    with pytest.raises(GuestDamaged, match="impossibly large"):
        read_mounted_devices(io.BytesIO(hive(root, *levels, cell(struct.pack("<2sH", b"li", 0)))))


def test_huge_numbers_of_values_end() -> None:
    """65,000 places that are all the same value are as good as endless."""
    name = b"MountedDevices"
    root_size = len(key(b"ROOT", ROOT_FLAGS, 1, 0, 0, NOWHERE))
    leaf_at = FIRST_AT + root_size
    leaf_size = len(cell(bytes(8)))
    key_at = leaf_at + leaf_size
    key_size = len(key(name, 0x20, 0, NOWHERE, 0, 0))
    value_at = key_at + key_size
    value = cell(struct.pack("<2sHIIIHH", b"vk", 1, 0x80000000, 0, 3, 1, 0) + b"x")
    list_at = value_at + len(value)
    cells = [
        key(b"ROOT", ROOT_FLAGS, 1, leaf_at, 0, NOWHERE),
        cell(struct.pack("<2sHI", b"li", 1, key_at)),
        key(name, 0x20, 0, NOWHERE, 65_000, list_at),
        value,
        cell(struct.pack("<65000I", *[value_at] * 65_000)),
    ]
    with pytest.raises(GuestDamaged, match="impossibly large"):
        read_mounted_devices(io.BytesIO(hive(*cells)))


@given(seed=st.integers(0, 2**32))
def test_flipped_bytes_never_raise_anything_else(windows_like: Path, seed: int) -> None:
    """A damaged hive gives drives, or GuestDamaged."""
    content = bytearray(windows_like.read_bytes())
    chance = random.Random(seed)
    for _ in range(chance.randrange(1, 30)):
        content[chance.randrange(len(content))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    try:
        drives = read_mounted_devices(io.BytesIO(bytes(content)))
    except GuestDamaged:
        return
    assert all(len(data) <= VALUE_MAX for data in drives.values())
