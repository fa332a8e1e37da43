"""A .vmx as text: keys and values in their order, read from a stranger and written for ESXi.

Decides the format's details (quotes, `|22`, what is no line) and the limits. Knows no key's
meaning. Keys are compared without case, as ESXi does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from backpoint_repo.errors import ObjectDamaged

SIZE_MAX: Final = 1 << 20
"""Bytes; those of ESXi have some KiB."""
LINES_MAX: Final = 20_000
_LINE: Final = re.compile(r'\s*([A-Za-z0-9_][\w.:\-]{0,255})\s*=\s*"([^"]{0,65536})"\s*')
_ESCAPE: Final = re.compile(r"(?:\|[0-9A-Fa-f]{2})+")
_ESCAPED: Final = re.compile(r'[\x00-\x1f\x7f"|#]')


class Vmx:
    """Values by key. A key that is set again keeps its place and the spelling it had first."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values: dict[str, tuple[str, str]] = {}
        for key, value in (values or {}).items():
            self.set(key, value)

    def get(self, key: str, default: str = "") -> str:
        """The value, unescaped."""
        return self._values.get(key.lower(), ("", default))[1]

    def __contains__(self, key: str) -> bool:
        return key.lower() in self._values

    def set(self, key: str, value: str) -> None:
        """Put a value, over the one that is there."""
        spelt = self._values.get(key.lower(), (key, ""))[0]
        self._values[key.lower()] = (spelt, value)

    def drop(self, key: str) -> None:
        """Harmless where there is none."""
        self._values.pop(key.lower(), None)

    def names(self) -> list[str]:
        """In lower case, in their order; a copy, so that keys may be dropped meanwhile."""
        return list(self._values)

    def below(self, prefix: str) -> list[str]:
        """Keys of one device: "ethernet0" has "ethernet0.present", in lower case."""
        start = prefix.lower() + "."
        return [key for key in self._values if key.startswith(start)]

    def is_true(self, key: str) -> bool:
        """Whether the value is TRUE in any case."""
        return self.get(key).strip().lower() == "true"

    def items(self) -> Iterator[tuple[str, str]]:
        """As spelt, in order."""
        yield from self._values.values()


def parse_vmx(data: bytes, what: str) -> Vmx:
    """Lines that are no `key = "value"` are left out; of a key given twice the last one counts.

    what: the file and its point, for the message. Raises ObjectDamaged where it is too large to be
    a .vmx, or has not one setting.
    """
    if len(data) > SIZE_MAX:
        raise ObjectDamaged(f"{what} has {len(data)} bytes, more than any .vmx")
    found = Vmx()
    lines = _decode(data).split("\n")
    for line in lines[:LINES_MAX]:
        if match := _LINE.fullmatch(line.rstrip("\r")):
            found.set(match[1], _unescape(match[2]))
    if not found.names():
        raise ObjectDamaged(f"{what} is no .vmx: it has no setting")
    return found


def encode_vmx(vmx: Vmx) -> bytes:
    """UTF-8, which it says itself in its first line."""
    lines = ['.encoding = "UTF-8"']
    lines += [f'{key} = "{_escape(value)}"' for key, value in vmx.items() if key != ".encoding"]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Older ones, or of a Windows client. Latin-1 reads anything; only names can be wrong.
        return data.decode("latin-1")


def _unescape(value: str) -> str:
    """`|22` is a quote: each a byte of what is UTF-8 together."""
    return _ESCAPE.sub(lambda found: _decode(bytes.fromhex(found[0].replace("|", ""))), value)


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: f"|{ord(found[0]):02X}", value)
