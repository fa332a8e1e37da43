"""The line of each key, in documents of every shape TOML has."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.settings.lines import find_lines, nearest_line
from backpoint_agent.settings.section import KeyPath

NAMES = st.sampled_from(["a", "b-c", "d_1", "7", "with space", "tä", 'quo"te', "x.y", "#no", "[z]"])
VALUES = st.sampled_from(
    [
        "1",
        "-3.5e2",
        "true",
        "inf",
        "1979-05-27 07:32:00",
        "07:32:00",
        '"plain"',
        "'lite # ral'",
        '"esc \\" = ] } # aped"',
        '""',
        "''",
        '"""one"""',
        '"""\nk = 1\n[a]\n"""',
        '"""q \\""" \\\n  z"""""',
        "'''\n# no\n'x' = ''\n'''",
        "''''two'''''",
        "[]",
        "{}",
        "{ k = [1, 2], 'l.m' = { n.o = \"}\" } }",
        "[ # why\n  1, # , ]\n\n  2\n]",
        '[["a", \'b\'],\n [],\n {p = 1, q = 2}, """\n""" ]',
        "[\n  { name = 'x', deep = [\n {r = 1}] },\n  { name = 'y' },\n]",
    ]
)
BLANKS = st.sampled_from(["", "\n", "# = [a] '''\n", "  \t# comment\n\n", "   "])


def quoted(name: str) -> str:
    """A key as TOML writes it."""
    bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
    return name if bare else json.dumps(name, ensure_ascii=False)


KEYS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: " . ".join(map(quoted, names)))
STATEMENTS = st.one_of(
    st.builds("{}[{}]  # t\n".format, BLANKS, KEYS),
    st.builds("{}[[ {} ]]\n".format, BLANKS, KEYS),
    st.builds("{}{} = {}  # c\n".format, BLANKS, KEYS, VALUES),
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Text that tomllib accepts, statement by statement."""
    text = ""
    for statement in draw(st.lists(STATEMENTS, min_size=1, max_size=12)):
        try:
            tomllib.loads(text + statement)
        except tomllib.TOMLDecodeError:
            continue
        text += statement
    return text.rstrip("\n") if draw(st.booleans()) else text


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key and array element of what tomllib read."""
    if not isinstance(value, dict | list):
        return
    for key, element in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from paths(element, (*path, key))


@given(documents())
def test_every_key_has_its_line(text: str) -> None:
    """Exactly the keys that tomllib finds, and each line contains its key."""
    lines = find_lines(text)
    assert set(lines) == set(paths(tomllib.loads(text)))
    written = text.split("\n")
    for path, line in lines.items():
        named = [key for key in path if isinstance(key, str)][-1]
        if isinstance(path[-1], str):
            assert named in written[line - 1] or quoted(named) in written[line - 1]


@given(documents())
def test_elements_stand_in_order(text: str) -> None:
    """An element of an array is no higher than the one before it, nor than its array."""
    lines = find_lines(text)
    for path, line in lines.items():
        if isinstance(path[-1], int):
            before = (*path[:-1], path[-1] - 1) if path[-1] else path[:-1]
            assert lines[before] <= line


@given(documents())
def test_a_line_more_moves_all(text: str) -> None:
    """A comment in front moves every key by one line."""
    moved = find_lines(f"# first\n{text}")
    assert moved == {path: line + 1 for path, line in find_lines(text).items()}


DOCUMENT = """\
top = 1
[a.b]
c.d = { e = 1,  f = [ 1,
  2 ] }
[[a.list]]
x = 1
[z]
[[a.list]]
x = 2
[a.list.inner]
y = 3
[a]
text = '''
x = 9
'''
last = 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 1),
        (("a",), 12),
        (("a", "b"), 2),
        (("a", "b", "c"), 3),
        (("a", "b", "c", "d", "f"), 3),
        (("a", "b", "c", "d", "f", 1), 4),
        (("a", "list"), 5),
        (("a", "list", 0, "x"), 6),
        (("a", "list", 1), 8),
        (("a", "list", 1, "x"), 9),
        (("a", "list", 1, "inner", "y"), 11),
        (("a", "text"), 13),
        (("a", "last"), 16),
    ],
)
def test_lines_by_hand(path: KeyPath, line: int) -> None:
    """A table stands where its own header is; elements of interleaved arrays keep their places."""
    assert find_lines(DOCUMENT)[path] == line


@pytest.mark.parametrize(
    ("path", "line"),
    [(("a", "b", "new"), 2), (("a", "list", 1, "new", 4), 8), (("none", "x"), 1), ((), 1)],
)
def test_what_is_not_there_is_at_its_table(path: KeyPath, line: int) -> None:
    """And what no table is there for, at the file's first line."""
    assert nearest_line(find_lines(DOCUMENT), path) == line
