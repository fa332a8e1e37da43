"""Records: whatever bytes come, a typed value or ObjectDamaged, quickly and in little memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.record import Record, encode_record

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=5), values, max_size=6))
def test_written_and_read_again(fields: dict[str, Any]) -> None:
    assert Record.decode(encode_record(fields), "x").plain() == fields


@given(st.binary(max_size=300))
def test_garbage_is_damage(payload: bytes) -> None:
    try:
        decoded = Record.decode(payload, "the name").plain()
    except ObjectDamaged:
        return
    assert isinstance(decoded, dict)


BIG = (1 << 24) - 1
HOSTILE = [
    b"",
    b"\xc1",
    b"\x91" * 200_000,
    b"\x81\xa1a" * 200_000,
    b"\xdd" + BIG.to_bytes(4, "big"),
    (b"\xdd" + BIG.to_bytes(4, "big")) * 400,
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x81\x01\x02",
    b"\x81\x91\x01\x02",
    b"\x81\xa1\xff\x01",
    b"\xd7\xff" + b"\xff" * 8,
    b"\x80\x80",
]


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_payloads_cost_nothing(payload: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(ObjectDamaged):
        Record.decode(payload, "x")
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB


def test_fields_are_of_exactly_their_type() -> None:
    fields = {"s": "x", "i": 1, "b": True, "f": 1.0, "l": [1, "x"], "m": {}, "n": None, "y": b"ab"}
    record = Record.decode(msgpack.packb(fields), "x")
    assert record.get("s", str) == "x"
    assert record.optional("n", str) is None
    assert record.optional("absent", str) is None
    assert record.sized("y", 2) == b"ab"
    refused: list[Callable[[], object]] = [
        lambda: record.get("s", bytes),
        lambda: record.get("b", int),
        lambda: record.get("i", float),
        lambda: record.get("f", int),
        lambda: record.get("n", str),
        lambda: record.get("absent", str),
        lambda: record.items("l", int),
        lambda: record.records("l"),
        lambda: record.record("l"),
        lambda: record.record("absent"),
        lambda: record.sized("y", 3),
        lambda: record.optional("s", int),
    ]
    for access in refused:
        with pytest.raises(ObjectDamaged):
            access()


@pytest.mark.parametrize("number", [-1, 1 << 63, 2**64 - 1])
def test_numbers_that_could_not_grow_are_refused(number: int) -> None:
    record = Record.decode(encode_record({"n": number}), "x")
    with pytest.raises(ObjectDamaged):
        record.natural("n")
