"""The text in which LVM2 writes its metadata (libdm's dm_config), as nested dicts.

Sections, numbers, strings and arrays. Bounded: by the text's length, which `lvm_label` limits, and
in depth. Knows no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from backpoint_fusefs.guest.filesystem import GuestDamaged

Value = int | float | str | list[int | float | str]
Section = dict[str, "Value | Section"]

_MAX_DEPTH = 6
# Possessive throughout: without, a run of "#" would be tried in every way to split it.
_TOKEN = re.compile(
    r"""[\s,]*+(?:\#[^\n]*+[\s,]*+)*+
    (?:(?P<number>[-+]?[0-9]{1,19}(?:\.[0-9]{1,19})?)(?![A-Za-z0-9_.+@/-])
    |(?P<word>[A-Za-z0-9_.+@/-]{1,256}+)
    |"(?P<string>(?:[^"\\]|\\.){0,65536}+)"
    |(?P<mark>[{}\[\]=]))""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_BLANK = re.compile(r"[\s,]*+(?:#[^\n]*+[\s,]*+)*+\Z", re.ASCII)
_Token = tuple[str, str]


def parse_text(raw: bytes) -> Section:
    """Raises GuestDamaged for what LVM2 would not have written."""
    text = raw.decode("utf-8", "replace")
    root: Section = {}
    open_sections = [root]
    tokens = _tokens(text)
    for kind, name in tokens:
        section = open_sections[-1]
        if (kind, name) == ("mark", "}") and len(open_sections) > 1:
            open_sections.pop()
            continue
        if kind not in ("word", "number") or name in section:
            raise GuestDamaged(f"LVM2 metadata have {name[:40]!r} where it cannot be")
        following = next(tokens, ("", ""))
        if following == ("mark", "{") and len(open_sections) <= _MAX_DEPTH:
            inner: Section = {}
            section[name] = inner
            open_sections.append(inner)
        elif following == ("mark", "="):
            section[name] = _value(tokens)
        else:
            raise GuestDamaged(f"LVM2 metadata have no value for {name[:40]!r}")
    if len(open_sections) > 1:
        raise GuestDamaged("LVM2 metadata end in the middle")
    return root


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            if _BLANK.match(text, at):
                return
            raise GuestDamaged(f"LVM2 metadata cannot be read at character {at}")
        yield str(match.lastgroup), str(match[str(match.lastgroup)])
        at = match.end()


def _value(tokens: Iterator[_Token]) -> Value:
    token = next(tokens, ("", ""))
    if token != ("mark", "["):
        return _scalar(token)
    values: list[int | float | str] = []
    for token in tokens:
        if token == ("mark", "]"):
            return values
        values.append(_scalar(token))
    raise GuestDamaged("LVM2 metadata end in the middle of an array")


def _scalar(token: _Token) -> int | float | str:
    kind, text = token
    if kind == "number":
        return float(text) if "." in text else int(text)
    if kind == "string":
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL) if "\\" in text else text
    raise GuestDamaged(f"LVM2 metadata have {text[:40]!r} in place of a value")
