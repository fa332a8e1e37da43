"""A folder of JSON records, one a file, numbered in the order they were saved.

Decides that a record is whole or not there, that the last ones are kept, and that only what this
module has written is deleted. The order is a number in the file's name: clocks may say anything.
Knows no record's meaning.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from backpoint_agent.report.folder_turn import turn
from backpoint_agent.state_folder import make_private_folder
from backpoint_repo.durable_file import delete_unfinished, write_durably

SIZE_MAX: Final = 64 << 20
"""Bytes of a file that is read at all: a run of ten thousand VMs has a third of it."""

_NAME: Final = re.compile(r"(\d{8,18})-.+\.json", re.ASCII | re.DOTALL)
_LOCK: Final = ".lock"
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def save_numbered(folder: Path, name: str, record: dict[str, Any], kept: int) -> Path:
    """Write the record, durably and for this user alone, and delete the oldest beyond `kept`.

    name: what the file's name has behind the number. record: its first key is "type". Raises
    UsageError where the folder cannot be made or others may write to it, Busy, OSError.
    """
    make_private_folder(folder)
    with turn(folder / _LOCK):
        there = _numbered(folder)
        number = there[-1][0] + 1 if there else 1
        path = folder / f"{number:08}-{name}.json"
        write_durably(path, json.dumps(record, allow_nan=False).encode() + b"\n", 0o600)
        for _, old in there[: max(0, len(there) + 1 - kept)]:
            _delete(folder / old, _head(record))
        # Whoever wrote it had the lock, and is gone.
        delete_unfinished(folder)
    return path


def read_numbered(
    folder: Path, tell: Callable[[str], object]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The records, the last saved first, each read when it is asked for.

    tell: called with a sentence for each that cannot be read; it is passed over. Raises nothing.
    """
    try:
        there = _numbered(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        tell(f"{folder}: the records cannot be read: {error.strerror}")
        return
    for _, name in reversed(there):
        path = folder / name
        try:
            record = _decode(_read(path))
        except FileNotFoundError:
            continue  # the oldest are deleted while we read
        except OSError as error:
            tell(f"{path}: cannot be read: {error.strerror}; it is passed over")
        except ValueError as error:
            tell(f"{path} is damaged: {error}; it is passed over")
        else:
            yield path, record


def _numbered(folder: Path) -> list[tuple[int, str]]:
    """Names of records, in the order they were saved; what has another name is not ours."""
    with os.scandir(folder) as entries:
        matches = [_NAME.fullmatch(entry.name) for entry in entries]
    return sorted((int(match[1]), match[0]) for match in matches if match)


def _read(path: Path) -> bytes:
    with open(os.open(path, _OPEN_FLAGS), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_size > SIZE_MAX:
            raise ValueError(f"it has {found.st_size} bytes")
        return file.read(SIZE_MAX)


def _decode(data: bytes) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(record, dict):
        raise ValueError("it is no record")
    return record


def _delete(path: Path, head: bytes) -> None:
    """If it is a record: somebody may have put a file of such a name there."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            if not is_file or file.read(len(head)) != head:
                return
        path.unlink()


def _head(record: dict[str, Any]) -> bytes:
    """How every record of this sort begins."""
    return json.dumps({"type": record["type"]}).encode().removesuffix(b"}")
