"""A list of changed areas of a disk, from a file of JSON lines `{"offset": 0, "length": 65536}`.

Decides what such a file may say: a list that is misread loses data without a sign, so anything odd
is refused with its line. Knows no disk, only its size.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from backpoint_repo.errors import UsageError

_FIELDS: Final = {"offset", "length"}


def read_changed_list(path: Path, disk_size: int) -> list[tuple[int, int]]:
    """(offset, length) in bytes, as listed. Empty lines are passed over.

    Raises UsageError, with file and line, for what is not exactly such a list or lies outside the
    disk.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text") from error
    ranges = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            ranges.append(_range_of(line, f"{path}:{number}", disk_size))
    return ranges


def _range_of(line: str, where: str, disk_size: int) -> tuple[int, int]:
    try:
        # Objects become tuples of their pairs: a name that comes twice is seen, an array is none.
        pairs: Any = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}") from error
    fields = dict(pairs) if isinstance(pairs, tuple) else {}
    if set(fields) != _FIELDS or len(pairs) != len(_FIELDS):
        raise UsageError(f'{where}: must be {{"offset": bytes, "length": bytes}} and nothing else')
    for name, value in fields.items():
        if type(value) is not int or value < 0:
            raise UsageError(f"{where}: {name} must be a whole number from 0 up")
    offset, length = fields["offset"], fields["length"]
    if offset + length > disk_size:
        raise UsageError(f"{where}: ends at {offset + length}, behind the disk's end {disk_size}")
    return offset, length
