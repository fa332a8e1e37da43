"""Bytes, tables and records that are not quite what they were, or nothing that anybody would write.

All by chance, from a seed. Knows no keys, objects or stores.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgpack

NUMBERS: Final = (
    *(-1, 0, 1, 2, 255, 4096, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 60),
    *((1 << 63) - 2, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)),
)
FLOATS: Final = (0.0, -1.0, 1e18, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS: Final = ("", "\0", "../../x", "x" * 70_000, "\x1b[2J", "\u202e", "hold", "💾")


def bent(data: bytes, rng: random.Random) -> bytes:
    """A bit, a byte, a range, the end: something else than it was."""
    while True:
        made = rng.choice(_BENDS)(data, rng)
        if made != data:
            return made


def _place(data: bytes, rng: random.Random) -> int:
    """As often in the header, the salt and the end as in all the rest."""
    size = len(data)
    low, high = rng.choice(((0, 8), (8, 40), (size - 16, size), (size - 200, size), (0, size)))
    return rng.randrange(max(0, low), max(1, min(size, high)))


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at, length = _place(data, rng), rng.choice((1, 4, 8, 16, 512, len(data)))
    length = min(length, len(data) - at)
    fill = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return data[:at] + fill + data[at + length :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[
        : rng.choice((0, 1, 7, 8, 40, 55, len(data) - 1, len(data) - 16, _place(data, rng)))
    ]


def _extend(data: bytes, rng: random.Random) -> bytes:
    return data + rng.choice((b"\0", rng.randbytes(16), bytes(4096), data[-16:], data))


def _repeat(data: bytes, rng: random.Random) -> bytes:
    first, second = sorted((_place(data, rng), _place(data, rng)))
    return data[:second] + data[first:] if rng.random() < 0.5 else data[:first] + data[second:]


_BENDS: Final = (_flip, _flip, _flip, _overwrite, _cut, _extend, _repeat)


def odd_arrays(payload: bytes, rng: random.Random) -> bytes:
    """An index segment or a pack's directory with odd counts or odd rows."""
    how = rng.randrange(4)
    if how == 0:
        return bent(payload, rng) if payload else b"\0"
    at = rng.choice((0, 4, 16, 20)) if how == 1 else rng.randrange(0, max(1, len(payload) - 4))
    odd = struct.pack("<I", rng.choice((0, 1, 7, 1 << 16, (1 << 31) - 1, (1 << 32) - 1)))
    return payload[:at] + odd + payload[at + 4 :]


def odd_record(payload: bytes, rng: random.Random) -> bytes:
    """The record with one or two values that are not what they were, anywhere in it."""
    fields = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    if rng.random() < 0.1:
        return rng.choice(
            (b"", b"\xc1", payload[:-1], payload + b"\0", msgpack.packb(odd_value(rng)))
        )
    for _ in range(rng.choice((1, 1, 2))):
        if isinstance(fields, dict):
            _spoil(fields, rng)
    try:
        return bytes(msgpack.packb(fields, use_bin_type=True))
    except (ValueError, OverflowError):
        return b"\x80"


def _spoil(fields: dict[Any, Any], rng: random.Random) -> None:
    places = list(_places(fields))
    if not places:
        fields["x"] = odd_value(rng)
        return
    holder, at = rng.choice(places)
    how = rng.random()
    if how < 0.15:
        del holder[at]
    elif how < 0.3 and isinstance(holder, list):
        holder.extend([holder[at]] * rng.choice((1, 300)))
    elif how < 0.6:
        holder[at] = _like(holder[at], rng)
    else:
        holder[at] = odd_value(rng)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value inside, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield value, at
            yield from _places(inner)


def _like(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes):
        return bent(value, rng) if value else b"\0"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice(NUMBERS)
    if isinstance(value, float):
        return rng.choice(FLOATS)
    return rng.choice(TEXTS) if isinstance(value, str) else odd_value(rng)


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that a record can hold."""
    how = rng.randrange(9 if depth < 4 else 6)
    if how == 0:
        return rng.choice((None, True, False))
    if how == 1:
        return rng.choice(NUMBERS)
    if how == 2:
        return rng.choice(FLOATS)
    if how == 3:
        return rng.choice(TEXTS)
    if how in (4, 5):
        return rng.randbytes(rng.choice((0, 1, 15, 16, 17, 31, 32, 33, 49, 4096)))
    if how == 6:
        return {f"{at}": odd_value(rng, depth + 1) for at in range(rng.randrange(4))}
    return [odd_value(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 3, 40)))]
