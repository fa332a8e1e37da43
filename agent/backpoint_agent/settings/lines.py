"""On which line of the file each key stands.

tomllib tells no places, and tomlkit, which keeps the text, moves tables about when arrays of tables
are interleaved; so the text is walked here. Only text that tomllib has accepted comes in: this
decides where things are, never whether they are right.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections import Counter
from typing import Final

from backpoint_agent.settings.section import KeyPath

Lines = dict[KeyPath, int]

_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"[ \t\r\n]*(?:#[^\n]*[ \t\r\n]*)*")
_REST: Final = re.compile(r"[^\n]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING_STEPS: Final = {
    '"""': re.compile(r'\\.|"{3,5}', re.DOTALL),
    "'''": re.compile(r"'{3,5}"),
    '"': re.compile(r'\\.|"'),
    "'": re.compile(r"'"),
}
"""By how a string begins: the next escape in it, or its end, which may have two quotes of the
string's own in front."""
_PLAIN: Final = re.compile(r"[^,\]}#\n]+")
"""A number, flag or date; a date may have a space in it."""


def find_lines(text: str) -> Lines:
    """The line (the first is 1) of each key and each element of an array, tables included.

    Where several lines speak of one table, its own header counts, else the first that names it.
    Raises RecursionError where values are nested some hundred deep.
    """
    walk = _Walk(text)
    walk.document()
    return walk.lines


def nearest_line(lines: Lines, path: KeyPath) -> int:
    """The line of a key, or of the nearest table around it that is in the file; 1 for the file."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


class _Walk:
    """One pass over the text. place: offset of the next character to look at."""

    def __init__(self, text: str) -> None:
        self.lines: Lines = {}
        self._text = text
        self._place = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._array_tables: Counter[KeyPath] = Counter()

    def document(self) -> None:
        """Headers and keys, one a line, to the end."""
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._place < len(self._text):
            if self._text[self._place] == "[":
                table = self._header()
            else:
                self._pair(table)
                self._skip(_REST)
            self._skip(_BLANK)

    def _header(self) -> KeyPath:
        line = self._line()
        in_array = self._text.startswith("[[", self._place)
        self._place += 2 if in_array else 1
        path: KeyPath = ()
        keys = self._keys()
        for key in keys:
            self.lines.setdefault((*path, key), line)
            path = self._latest((*path, key))
        if in_array:
            named = (*self._latest_of(keys[:-1]), keys[-1])
            path = (*named, self._array_tables[named])
            self._array_tables[named] += 1
        self.lines[path] = line
        self._skip(_REST)
        return path

    def _latest_of(self, keys: list[str]) -> KeyPath:
        path: KeyPath = ()
        for key in keys:
            path = self._latest((*path, key))
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        """In an array of tables a header speaks of the last one."""
        count = self._array_tables.get(path, 0)
        return (*path, count - 1) if count else path

    def _pair(self, table: KeyPath) -> None:
        line, path = self._line(), table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._skip(_SPACE)
        self._place += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> list[str]:
        """A key, dotted or not; ends behind the blanks that follow it."""
        keys = []
        while True:
            self._skip(_SPACE)
            start, quoted = self._place, self._text[self._place] in "\"'"
            if quoted:
                self._string()
            else:
                self._skip(_BARE_KEY)
            token = self._text[start : self._place]
            keys.append(tomllib.loads(f"key = {token}")["key"] if quoted else token)
            self._skip(_SPACE)
            if self._text[self._place] != ".":
                return keys
            self._place += 1

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._place]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_PLAIN)

    def _string(self) -> None:
        opening = next(mark for mark in _STRING_STEPS if self._text.startswith(mark, self._place))
        self._place += len(opening)
        while True:
            step = _STRING_STEPS[opening].search(self._text, self._place)
            assert step is not None, f"line {self._line()} is not as tomllib reads it"
            self._place = step.end()
            if step[0][0] != "\\":
                return

    def _array(self, path: KeyPath) -> None:
        self._place += 1
        self._skip(_BLANK)
        count = 0
        while self._text[self._place] != "]":
            self.lines[(*path, count)] = self._line()
            self._value((*path, count))
            count += 1
            self._separator()
        self._place += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._place += 1
        self._skip(_BLANK)
        while self._text[self._place] != "}":
            self._pair(path)
            self._separator()
        self._place += 1

    def _separator(self) -> None:
        self._skip(_BLANK)
        if self._text[self._place] == ",":
            self._place += 1
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._place)
        assert match is not None, f"line {self._line()} is not as tomllib reads it"
        self._place = match.end()

    def _line(self) -> int:
        return bisect_right(self._line_starts, self._place)
