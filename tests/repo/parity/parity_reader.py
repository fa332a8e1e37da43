"""A second decoder of parity, written from FORMAT.md 8.2 alone: shares no code with the project and
none with zfec. Slow. Raises Damaged for what the page says is damaged.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgpack
from blake3 import blake3

from repo.second_reader_keys import Damaged, Keys, derive, files_in, kind_of, open_record

PARITY = 15
Row = list[Any]


def multiplied(a: int, b: int) -> int:
    """In GF(2^8) modulo 0x11D, bit by bit."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


def power(a: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = multiplied(result, a)
    return result


def abscissa(number: int) -> int:
    """x_i"""
    return 0 if number == 0 else power(2, number - 1)


def solved(rows: list[list[int]], right: list[bytes]) -> list[bytes]:
    """Gauss and Jordan: what solves rows * unknown = right, each unknown a row of bytes."""
    rows, right = [list(row) for row in rows], list(right)
    for at in range(len(rows)):
        pivot = next(n for n in range(at, len(rows)) if rows[n][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        right[at], right[pivot] = right[pivot], right[at]
        inverse = power(rows[at][at], 254)
        rows[at] = [multiplied(inverse, value) for value in rows[at]]
        right[at] = scaled(inverse, right[at])
        for other in range(len(rows)):
            if other != at and (factor := rows[other][at]):
                scaled_row = [multiplied(factor, value) for value in rows[at]]
                rows[other] = [a ^ b for a, b in zip(rows[other], scaled_row, strict=True)]
                right[other] = added(right[other], scaled(factor, right[at]))
    return right


def scaled(factor: int, data: bytes) -> bytes:
    return data.translate(bytes(multiplied(factor, value) for value in range(256)))


def added(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def read_group(root: Path, keys: Keys, path: Path) -> tuple[dict[str, Any], bytes]:
    """The group that a spare tells, and its body."""
    data = path.read_bytes()
    place = path.relative_to(root).as_posix()
    if kind_of(path) != PARITY or data[-8:] != b"BCKPPAR1":
        raise Damaged(place)
    (length,) = struct.unpack("<I", data[-16:-12])
    meta = derive(keys.secret, b"backpoint v1 meta")
    group = msgpack.unpackb(open_record(meta, PARITY, place, data[-16 - length : -16]))
    size = size_of(group)
    if len(data) != 8 + size + length + 16:
        raise Damaged(place)
    if path.name not in [row[0].hex() for row in group["spares"]]:
        raise Damaged(place)
    return group, data[8 : 8 + size]


def size_of(group: dict[str, Any]) -> int:
    sizes: list[int] = [row[2] for row in group["members"]]
    return max(sizes)


def pack_path(root: Path, row: Row) -> Path:
    """Of a member."""
    folder, name = {3: "packs", 4: "nodes"}[row[0]], bytes(row[1]).hex()
    return root / folder / name[:2] / name


def rebuilt(root: Path, keys: Keys, number: int) -> dict[str, bytes]:
    """Every group's pack `number`, by its path, from others that are right at each column."""
    found = dict[str, bytes]()
    for path in files_in(root, "parity"):
        group, _ = read_group(root, keys, path)
        row = group["members"][number]
        found[pack_path(root, row).relative_to(root).as_posix()] = _rebuilt(root, group, number)
    return found


def _rebuilt(root: Path, group: dict[str, Any], number: int) -> bytes:
    size, step = size_of(group), group["column"]
    objects = []  # (bytes, their size, digests), in code order
    for row in group["members"]:
        path = pack_path(root, row)
        objects.append((path.read_bytes() if path.exists() else b"", row[2], row[3]))
    for name, digests in group["spares"]:
        path = root / "parity" / name.hex()
        body = path.read_bytes()[8 : 8 + size] if path.exists() else b""
        objects.append((body, size, digests))
    members, data = len(group["members"]), b""
    for start in range(0, size, step):
        known = dict[int, bytes]()
        for other, (content, own_size, digests) in enumerate(objects):
            column = content[start : min(start + step, own_size)]
            at = 16 * (start // step)
            right = blake3(column).digest(16) == digests[at : at + 16] or start >= own_size
            if right and other != number and len(known) < members:
                known[other] = column.ljust(min(step, size - start), b"\0")
        # f as coefficients: each known byte is f(x) = sum of coefficient j times x^j.
        rows = [[power(abscissa(other), j) for j in range(members)] for other in known]
        coefficients = solved(rows, list(known.values()))
        value = bytes(min(step, size - start))
        for j in range(members):
            value = added(value, scaled(power(abscissa(number), j), coefficients[j]))
        data += value
    return data[: group["members"][number][2]]
