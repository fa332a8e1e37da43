"""Names that trip readers: long, deep, odd characters, many in one folder, many removed again.

Decides the names; checks that the folder afterwards has exactly those.
"""

from __future__ import annotations

import os
import random
import unicodedata
from pathlib import Path

from guest_trees.abilities import Abilities
from guest_trees.writeback import write_back

# With the path of the mount before it this must stay below the kernel's 4096 bytes.
_DEEP_BYTES = 3_700
_STEEP_LEVELS = 300

_PLAIN = (
    "plain.txt",
    "with spaces  two",
    " leading and trailing.",
    "-rf",
    "--help",
    ".hidden",
    "..x",
    "...",
    "~",
    "#tmp#",
    "$(id)",
    "`id`",
    "%41%00%2F",
    "&amp;",
    "a;b",
    "quote's",
    "con",
    "aux.txt",
    "nul",
    "COM1",
    "name.tar.gz",
    "lost+found",
    "$MFT",
    "$Extend",
    unicodedata.normalize("NFC", "Ärger élan Å"),
    unicodedata.normalize("NFD", "Ärger élan Å"),
    "日本語のファイル",
    "Ελληνικά",
    "שלום עולם",
    "\u202eright to left",
    "e\u0301\u0300\u0327 combining",
    "zero\u200bwidth",
    "\u00a0",
    "emoji 😀 👩‍👩‍👧",
    "ﬁ \u017f \u0131 İ ẞ",
)
_ODD = (
    'double"quotes"',
    "new\nline",
    "tab\tcarriage\rreturn",
    "bell\aescape\x1b[31m",
    "\x01\x1f\x7f",
    "back\\slash",
    "C:\\Windows",
    "a:b",
    "star*",
    "what?",
    "<in>out|pipe",
)
_RAW = (b"bad\xff\xfename", b"\x80", b"latin1 \xe4\xf6\xfc", b"cut \xe2\x82", b"\xed\xa0\x80 lone")
_CASES = ("Case", "case", "CASE", "cASE", "STRASSE", "straße", "Straße")


def fill_names(folder: Path, abilities: Abilities, chance: random.Random) -> None:
    """Odd names, long names, deep paths, an empty folder, a crowded one."""
    (folder / "empty folder").mkdir()
    _odd(folder / "odd", abilities)
    _long(folder / "long", abilities)
    _deep(folder, "deep", _DEEP_BYTES, b"d" * 120)
    _deep(folder, "steep", 2 * _STEEP_LEVELS, b"s")
    _crowded(folder / "crowded", abilities.many_entries, chance)
    _emptied(folder / "emptied", abilities.many_entries // 4)


def _odd(folder: Path, abilities: Abilities) -> None:
    names = [name.encode() for name in (*_PLAIN, *_ODD)]
    names += _RAW if abilities.raw_names else ()
    if abilities.case_sensitive:
        names += [name.encode() for name in _CASES]
    names = [name for name in names if not set(name) & set(abilities.forbidden)]
    _make(folder, names)
    # The same names as folders, each with something inside.
    below = folder / "as folders"
    below.mkdir()
    for name in names:
        path = os.path.join(os.fsencode(below), name)
        os.mkdir(path)
        Path(os.fsdecode(path), "inside").write_bytes(name)


def _long(folder: Path, abilities: Abilities) -> None:
    most = abilities.name_max
    names = {b"n" * most, b"m" * (most - 1), b"l" * (most - 4) + b".txt", b"x", b"12345678.123"}
    if abilities.names_utf16:
        names |= {("ä" * most).encode(), ("語" * most).encode(), ("😀" * (most // 2)).encode()}
    else:
        names |= {("ä" * (most // 2)).encode(), ("😀" * (most // 4)).encode()}
    _make(folder, sorted(names))


def _make(folder: Path, names: list[bytes]) -> None:
    """Files of those names, each with its name as content; and nothing else is there then."""
    folder.mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(folder), name), "xb") as file:
            file.write(name)
    found = set(os.listdir(os.fsencode(folder)))
    if found != set(names):
        raise RuntimeError(f"{folder}: names changed by the driver: {found ^ set(names)}")


def _deep(folder: Path, name: str, total: int, step: bytes) -> None:
    """A folder in a folder, and so on, until the path has `total` bytes; a file in the last."""
    (folder / name).mkdir()
    here = os.open(folder / name, os.O_RDONLY)
    for _ in range(total // (len(step) + 1)):
        os.mkdir(step, dir_fd=here)
        below = os.open(step, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open(b"at the bottom", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=here)
    os.write(file, step)
    os.close(file)
    os.close(here)


def _crowded(folder: Path, count: int, chance: random.Random) -> None:
    """Names of many lengths, every third removed again, a few put into the gaps."""
    folder.mkdir()
    names = [f"{number:06} {'x' * chance.randrange(60)}" for number in range(count)]
    for name in names:
        (folder / name).touch()
    write_back(folder)
    for name in names[::3]:
        (folder / name).unlink()
    for number in range(count // 20):
        (folder / f"late {number}").touch()
    for name in names[1::30]:
        (folder / name).rename(folder / f"renamed {name}")


def _emptied(folder: Path, count: int) -> None:
    """A folder that was large once and has one file now."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number} was here").touch()
    write_back(folder)
    for number in range(count):
        (folder / f"{number} was here").unlink()
    (folder / "still here").write_bytes(b"yes")
