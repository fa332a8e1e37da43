"""How names and paths of vSphere's inventory are compared with what a user wrote.

Case does not count, as in vSphere. A pattern is a shell pattern, and a name that is written out is
always meant as it stands, whatever brackets it has. Knows no VM.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final

_ESCAPED: Final = re.compile("%(2f|5c|25)", re.IGNORECASE)
_DATASTORE: Final = re.compile(r"\[[^]]*\](?= )")


def unescape(name: str) -> str:
    """A name as vSphere's own pages show it: vCenter keeps "/", "\\" and "%" as "%2f" ..."""
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1]).decode(), name)


def matches(name: str, pattern: str) -> bool:
    """Whether a name is what was written, or fits it as a shell pattern."""
    folded, wanted = name.casefold(), pattern.casefold()
    return folded == wanted or fnmatchcase(folded, wanted)


def path_matches(path: str, datacenter: str, pattern: str) -> bool:
    """Whether `path` ends with `pattern` or lies below such a place; both in parts.

    What vSphere's pages do not show of a path (below the datacenter "vm" or "host", and "Resources"
    of a pool) may be left out of the pattern.
    """
    wanted = _parts(pattern)
    return any(_stands_in(wanted, parts) for parts in (_parts(path), _shown(path, datacenter)))


def file_matches(file: str, pattern: str) -> bool:
    """Whether a disk's file fits; "[datastore]" at a pattern's start is no set of characters, and
    a delta ("web-000001.vmdk") is also known by its base's name."""
    escaped = _DATASTORE.sub(lambda found: f"[{found[0][0]}]{found[0][1:]}", pattern, count=1)
    names = {file, re.sub(r"-\d{6}(?=\.vmdk$)", "", file)}
    return any(matches(name, form) for name in names for form in (pattern, escaped))


def _parts(path: str) -> list[str]:
    return [unescape(part) for part in path.strip("/").split("/") if part]


def _shown(path: str, datacenter: str) -> list[str]:
    parts, above = _parts(path), _parts(datacenter)
    if above and parts[: len(above)] == above and len(parts) > len(above):
        del parts[len(above)]
    if "Resources" in parts:
        parts.remove("Resources")
    return parts


def _stands_in(wanted: list[str], parts: list[str]) -> bool:
    count = len(wanted)
    return count > 0 and any(
        all(map(matches, parts[at : at + count], wanted)) for at in range(len(parts) - count + 1)
    )
