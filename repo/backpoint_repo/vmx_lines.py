"""The lines of a .vmx: `key = "value"`, as VMware writes them and as people edit them.

Decides encoding, escapes and comments. A .vmx is untrusted: whatever is too much or makes no sense
is left out and told. What a key means, and what counts when it stands there twice, is for whoever
reads it.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

VMX_SIZE_MAX: Final = 1 << 20
"""Bytes; a real one has some KiB."""
_LINE_MAX: Final = 1 << 14
_LINES_MAX: Final = 20_000
_LINE: Final = re.compile(r'\s*([\w.:+-]{1,256})\s*=\s*(?:"([^"]*)"|([^"\s]\S*|))\s*(?:#.*)?')
_ESCAPES: Final = re.compile(r"(?:\|[0-9A-Fa-f]{2})+")
_ENCODING_KEY: Final = ".encoding"
_ENCODING: Final = re.compile(rb'^\s*\.encoding\s*=\s*"([\w.:-]{1,40})"', re.MULTILINE | re.I)
_NO_TEXT: Final = ("punycode", "idna", "unicode_escape", "raw_unicode_escape")
"""Of Python's own; the first two take the square of the length. No .vmx is in them."""


@dataclass(frozen=True)
class VmxLines:
    """settings: keys as they are spelt, and values, in their order. notes: for the user."""

    settings: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def read_vmx(data: bytes) -> VmxLines:
    """Never raises."""
    notes = []
    if len(data) > VMX_SIZE_MAX:
        notes.append(f"the .vmx is cut after {VMX_SIZE_MAX} bytes: no real one is longer")
        data = data[:VMX_SIZE_MAX]
    settings: list[tuple[str, str]] = []
    strange = 0
    for line in _decoded(data).split("\n"):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line) if len(line) <= _LINE_MAX else None
        if found is None or len(settings) == _LINES_MAX:
            strange += 1
            continue
        value = found[2] if found[2] is not None else found[3]
        if found[1].lower() != _ENCODING_KEY:
            settings.append((found[1], _unescaped(value)))
    if strange:
        notes.append(f"{strange} lines of the .vmx were not understood")
    return VmxLines(tuple(settings), tuple(notes))


def _decoded(data: bytes) -> str:
    named = _ENCODING.search(data)
    # latin-1 reads everything: a name in the wrong letters is better than no machine.
    for encoding in (named[1].decode() if named else "utf-8", "utf-8", "latin-1"):
        try:
            if codecs.lookup(encoding).name.replace("-", "_") not in _NO_TEXT:
                return data.decode(encoding).removeprefix("\ufeff")
        except (LookupError, ValueError):
            continue
    raise AssertionError("latin-1 reads everything")


def _unescaped(value: str) -> str:
    """`|22` is a quote: each a byte of what is UTF-8 together."""
    return _ESCAPES.sub(lambda found: _text(bytes.fromhex(found[0].replace("|", ""))), value)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
