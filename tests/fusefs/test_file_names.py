"""Whatever a VM is called, its folder has a name, and no two VMs have the same."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_fusefs.file_names import NAME_MAX, distinct_names, file_name

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web01", b"web01"),
        ("a/b", b"a%2Fb"),
        ("two\nlines\0", b"two%0Alines%00"),
        ("100%", b"100%25"),
        (".", b"%2E"),
        ("..", b"%2E%2E"),
        ("...", b"..."),
        ("", b"%"),
        ("Büro 3 🖥", "Büro 3 🖥".encode()),
        ("\udcff", b"%ED%B3%BF"),
    ],
)
def test_names_are_escaped_where_they_must_be(name: str, expected: bytes) -> None:
    assert file_name(name) == expected


@given(ANY_TEXT)
def test_every_name_is_a_file_name_and_can_be_undone_unless_cut(name: str) -> None:
    found = file_name(name)
    assert 1 <= len(found) <= NAME_MAX
    assert b"/" not in found
    assert b"\0" not in found
    assert found not in (b".", b"..")
    found.decode()
    assert not re.search(rb"%(?![0-9A-F]{2})", found) or found == b"%"
    if len(found) < NAME_MAX - 30 and name:
        assert unquote_to_bytes(found) == name.encode("utf-8", "surrogatepass")


@given(st.lists(ANY_TEXT, unique=True, max_size=20))
def test_distinct_names_stay_distinct(names: list[str]) -> None:
    found = distinct_names(names, (b"point.json", b"disk0.vmdk"))
    assert len({*found, b"point.json", b"disk0.vmdk"}) == len(names) + 2


def test_long_names_with_one_beginning_stay_distinct_and_taken_names_are_left_alone() -> None:
    long_names = ["é" * 200 + "1", "é" * 200 + "2", "é" * 127 + "x"]
    found = distinct_names([*long_names, "point.json", "point.json~"], (b"point.json",))
    assert len(set(found)) == 5
    assert max(map(len, found)) <= NAME_MAX
    assert found[2].decode() == long_names[2]
    assert re.fullmatch(rb"point\.json~[0-9a-f]{8}", found[3])
