"""Registry hives: empty ones by the format itself, filled ones by hivex.

Decides nothing about what is in them. The cells can be forged: `hive` believes its caller.
"""

from __future__ import annotations

import struct
import subprocess
from functools import reduce
from operator import xor
from pathlib import Path

NOWHERE = 0xFFFFFFFF
BIN = 4096
"""Bytes of a hive's header, and of its one bin."""


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
