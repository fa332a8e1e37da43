"""What a command says: lines and tables for people on a terminal, one JSON record for scripts.

Results go to stdout, everything else to stderr. Names come from guests and strangers: whatever of
them could move a cursor, or reorder what is read, is shown escaped. How long work goes on is told
by `progress.py`.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

_UNPRINTABLE: Final = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_WIDE: Final = 1 << 16


def printable(text: str) -> str:
    """The text with control, format and unassigned characters as escapes; always one line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _UNPRINTABLE
        else char
        for char in text
    )


def say(message: str) -> None:
    """One line on stderr, marked as ours; whole, whichever thread says it."""
    sys.stderr.write(f"backpoint: {printable(message)}\n")
    sys.stderr.flush()


def warn(message: str) -> None:
    """A warning on stderr: the command goes on."""
    say(f"warning: {message}")


def print_line(text: str = "") -> None:
    """One line of a result."""
    print(printable(text))


def print_record(record: dict[str, Any]) -> None:
    """One JSON record, on a line of its own. Escapes whatever is not ASCII."""
    print(json.dumps(record, allow_nan=False), flush=True)


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers stand at the right."""

    heading: str
    right: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A table with a line for each row, however long: a cell is never folded or cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        side: Any = "right" if column.right else "left"
        table.add_column(column.heading, justify=side, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=_WIDE).print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Lines of `name  value`, aligned."""
    rows = list(fields)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print_line(f"{name:<{width}}  {value}".rstrip())
