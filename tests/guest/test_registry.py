"""Drive letters read from real registry hives: an empty one by its format, filled by hivex."""

from __future__ import annotations

import io
import random
import struct
import subprocess
from functools import reduce
from operator import xor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.guest.filesystem import GuestDamaged
from backpoint_fusefs.guest.parsers.registry.mounted_devices import (
    VALUE_MAX,
    read_mounted_devices,
)

NOWHERE = 0xFFFFFFFF
BIN = 4096
"""Bytes of a hive's header, and of its one bin."""
MBR_C = struct.pack("<IQ", 0x1234ABCD, 1 << 20)
GPT_D = b"DMIO:ID:" + bytes(range(16))
TEXT_E = "\\??\\SCSI#CdRom&Ven_VBOX".encode("utf-16-le")
DRIVES = {"\\DosDevices\\C:": MBR_C, "\\DosDevices\\D:": GPT_D, "\\DosDevices\\E:": TEXT_E}


def cell(content: bytes) -> bytes:
    """In use, with its size in front, a multiple of 8."""
    size = -(-(len(content) + 4) // 8) * 8
    return struct.pack("<i", -size) + content.ljust(size - 4, b"\0")


def key(name: bytes, flags: int, subkeys: int, index: int, values: int, listed: int) -> bytes:
    """An nk cell. index: place of its list of keys; listed: place of its list of values."""
    fixed = struct.pack("<2sHQIIII", b"nk", flags, 0, 0, 0, subkeys, 0)
    places = struct.pack("<IIIIII", index, NOWHERE, values, listed, SECURITY_AT, NOWHERE)
    return cell(fixed + places + bytes(20) + struct.pack("<HH", len(name), 0) + name)


SECURITY_AT = 32
SECURITY = cell(
    struct.pack("<2sHIIII", b"sk", 0, SECURITY_AT, SECURITY_AT, 1, 20)
    + struct.pack("<BBHIIII", 1, 0, 0x8000, 0, 0, 0, 0)
)
FIRST_AT = SECURITY_AT + len(SECURITY)
ROOT_FLAGS = 0x2C


def hive(*cells: bytes, root: int = FIRST_AT, sequences: tuple[int, int] = (1, 1)) -> bytes:
    """Cells behind the security cell, the root key among them, and the rest of the bin free."""
    used = SECURITY + b"".join(cells)
    size = -(-(32 + len(used) + 8) // BIN) * BIN
    free = size - 32 - len(used)
    bins = struct.pack("<4sIIQQI", b"hbin", 0, size, 0, 0, 0) + used
    bins += struct.pack("<i", free) + bytes(free - 4)
    header = struct.pack("<4sIIQIIIIIII", b"regf", *sequences, 0, 1, 3, 0, 1, root, size, 1)
    header = header.ljust(508, b"\0")
    checksum = reduce(xor, struct.unpack("<127I", header))
    return (header + struct.pack("<I", checksum)).ljust(BIN, b"\0") + bins


EMPTY = hive(key(b"ROOT", ROOT_FLAGS, 0, NOWHERE, 0, NOWHERE))


def filled(path: Path, keys: dict[str, dict[str, bytes]]) -> Path:
    """A hive at this path with these keys below its root, written by hivex."""
    path.write_bytes(EMPTY)
    lines = []
    for name, values in keys.items():
        lines += ["cd \\", f"add {name}", f"cd {name}", f"setval {len(values)}"]
        for value, data in values.items():
            lines += [value, "hex:3:" + ",".join(f"{byte:02x}" for byte in data)]
    subprocess.run(
        ["hivexsh", "-w", str(path)],
        input="\n".join([*lines, "commit", "quit", ""]),
        text=True,
        check=True,
        capture_output=True,
    )
    return path


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
