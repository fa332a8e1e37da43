"""The text of a .vmx: `key = "value"` lines, as VMware writes them and as people edit them.

Decides encoding, escapes, comments and what counts when a key stands there twice. A .vmx is
untrusted: whatever is too much or makes no sense is left out and told. What a key means is not
known here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VMX_SIZE_MAX: Final = 1 << 20
"""A real one has some KiB."""
_LINE_MAX: Final = 1 << 14
_KEYS_MAX: Final = 20_000
_LINE: Final = re.compile(r'\s*([\w.:+-]{1,256})\s*=\s*(?:"([^"]*)"|([^"\s]\S*|))\s*(?:#.*)?')
_ESCAPE: Final = re.compile(r"\|([0-9A-Fa-f]{2})")
_SLOW: Final = ("punycode", "idna")
"""What Python decodes in the square of its length; no .vmx is in them."""
_ENCODING: Final = re.compile(rb'^\s*\.encoding\s*=\s*"([\w.:-]{1,40})"', re.MULTILINE | re.I)


@dataclass(frozen=True)
class Settings:
    """values: by key in lower case, since VMware does not tell cases apart. notes: for the user."""

    values: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def text(self, key: str) -> str:
        """Empty where it is not set."""
        return self.values.get(key.lower(), "")

    def switch(self, key: str) -> bool | None:
        """None where it says neither TRUE nor FALSE."""
        return {"true": True, "false": False}.get(self.text(key).strip().lower())

    def number(self, key: str, lowest: int, highest: int) -> int | None:
        """None where it is no number, or none in these bounds."""
        text = self.text(key).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            return None
        return int(text) if lowest <= int(text) <= highest else None


def parse_vmx(data: bytes) -> Settings:
    """Never raises. Where a key stands there twice the last one counts."""
    notes = []
    if len(data) > VMX_SIZE_MAX:
        notes.append(f"the .vmx is cut after {VMX_SIZE_MAX} bytes: no real one is longer")
        data = data[:VMX_SIZE_MAX]
    values: dict[str, str] = {}
    strange = 0
    for line in _decoded(data).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line) if len(line) <= _LINE_MAX else None
        if found is None or len(values) == _KEYS_MAX:
            strange += 1
            continue
        value = found[2] if found[2] is not None else found[3]
        values[found[1].lower()] = _unescaped(value)
    if strange:
        notes.append(f"{strange} lines of the .vmx were not understood")
    return Settings(values, tuple(notes))


def _decoded(data: bytes) -> str:
    named = _ENCODING.search(data)
    # latin-1 reads everything: a name in the wrong letters is better than no machine.
    for encoding in (named[1].decode() if named else "utf-8", "utf-8", "latin-1"):
        try:
            if codecs.lookup(encoding).name not in _SLOW:
                return data.decode(encoding).removeprefix("\ufeff")
        except (LookupError, ValueError):
            continue
    raise AssertionError("latin-1 reads everything")


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda code: chr(int(code[1], 16)), value)
