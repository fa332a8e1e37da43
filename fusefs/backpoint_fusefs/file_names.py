"""How names that users and hypervisors chose become names of files.

Decides what is escaped: whatever a file name cannot hold, percent-encoded; names over 255 bytes are
cut and end in a hash. Distinct names stay distinct within one folder. Knows no tree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from typing import Final

NAME_MAX: Final = 255
"""Bytes, as Linux counts them."""
_HASH_DIGITS: Final = 8
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f/%\ud800-\udfff]")
_HALF_ESCAPE: Final = re.compile(rb"%[0-9A-F]?$")


def file_name(name: str) -> bytes:
    """A name that a folder can hold; `%` starts an escape, so what is not cut can be undone.

    Control characters, `/`, `%` and lone surrogates become %XX of their bytes; an empty name is a
    lone `%`.
    """
    if name in ("", ".", ".."):
        return b"%2E" * len(name) or b"%"
    escaped = _FORBIDDEN.sub(_escape, name).encode()
    return escaped if len(escaped) <= NAME_MAX else _shorten(escaped, name)


def distinct_names(names: Iterable[str], taken: Collection[bytes]) -> list[bytes]:
    """`file_name` of each, in order; one that is taken already gets `~` and a hash of its name."""
    used, result = set(taken), []
    for name in names:
        found, attempt = file_name(name), 0
        while found in used:
            found = _shorten(file_name(name), f"{name}\0{attempt}" if attempt else name)
            attempt += 1
        used.add(found)
        result.append(found)
    return result


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _shorten(escaped: bytes, name: str) -> bytes:
    """As much of `escaped` as fits before a hash of `name`; no character or escape is cut."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_DIGITS // 2)
    suffix = b"~" + digest.hexdigest().encode()
    kept = escaped[: NAME_MAX - len(suffix)].decode("utf-8", "ignore").encode()
    return _HALF_ESCAPE.sub(b"", kept) + suffix
