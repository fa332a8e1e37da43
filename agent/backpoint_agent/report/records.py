"""The records of runs: one JSON file each, in a folder for each job, in the order they were saved.

Decides that a record is whole or not there, that the newest of each job are kept, so that a job of
every five minutes pushes no weekly one out, and that only what this module has written is deleted.
The order is a number in the file's name: clocks may say anything. Refuses to know what a record
means.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.durable_file import UNFINISHED, write_durably
from backpoint_agent.report.folder_turn import turn
from backpoint_agent.report.record_form import decode_run, encode_run
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder, make_private_folder

KEPT: Final = 1000
"""Records of one job."""

SIZE_MAX: Final = 64 << 20
"""Bytes of a file that is read at all: a run of ten thousand VMs has a third of it."""

_NAME: Final = re.compile(r"(\d{8,})-.+\.json", re.ASCII | re.DOTALL)
_HEAD: Final = b'{"type": "run", '
_LOCK: Final = ".lock"
_SAFE: Final = re.compile(r"\w[\w.-]*")
_NAME_MAX: Final = 200
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def records_folder(settings: Settings, state: StateFolder) -> Path:
    """Where all jobs' records are."""
    return settings.report.records or state.runs


def save_record(
    settings: Settings, state: StateFolder, record: RunRecord, *, kept: int = KEPT
) -> Path:
    """Write the record, durably, and delete the job's oldest beyond `kept`; where it is.

    Raises UsageError where others may write to the folder, Busy, OSError.
    """
    folder = _folder_of(records_folder(settings, state), record.job)
    make_private_folder(folder.parent)
    make_private_folder(folder)
    with turn(folder / _LOCK):
        there = _numbered(folder)
        number = there[-1][0] + 1 if there else 1
        path = folder / f"{number:08}-{_safe(record.number)}.json"
        write_durably(path, encode_run(record), 0o600)
        for _, name in there[: max(0, len(there) + 1 - kept)]:
            _delete(folder / name)
        for unfinished in folder.glob(f".*{UNFINISHED}"):
            # Whoever wrote it had the lock, and is gone.
            unfinished.unlink(missing_ok=True)
    return path


def read_records(folder: Path, job: str, tell: Callable[[str], object]) -> Iterator[RunRecord]:
    """The job's records, the last saved first, each read when it is asked for.

    folder: `records_folder`. tell: called with a sentence for each that cannot be read; it is
    passed over. Raises nothing.
    """
    own = _folder_of(folder, job)
    try:
        there = _numbered(own)
    except FileNotFoundError:
        return
    except OSError as error:
        tell(f"{own}: the records of runs cannot be read: {error.strerror}")
        return
    for _, name in reversed(there):
        try:
            record = decode_run(_read(own / name))
            if record.job != job:
                raise ValueError(f"it is of the job {record.job}")
        except FileNotFoundError:
            continue  # the oldest are deleted while we read
        except OSError as error:
            tell(f"{own / name}: cannot be read: {error.strerror}; it is passed over")
        except ValueError as error:
            tell(f"{own / name} is damaged: {error}; it is passed over")
        else:
            yield record


def _numbered(folder: Path) -> list[tuple[int, str]]:
    """Names of records, in the order they were saved; what has another name is not ours."""
    matches = map(_NAME.fullmatch, (entry.name for entry in os.scandir(folder)))
    return sorted((int(match[1]), match[0]) for match in matches if match)


def _read(path: Path) -> bytes:
    with open(os.open(path, _OPEN_FLAGS), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        if found.st_size > SIZE_MAX:
            raise ValueError(f"it has {found.st_size} bytes")
        return file.read(SIZE_MAX)


def _delete(path: Path) -> None:
    """If it is a record: somebody may have put a file of such a name there."""
    with contextlib.suppress(OSError, ValueError):
        with open(os.open(path, _OPEN_FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            if file.read(len(_HEAD)) != _HEAD:
                return
        path.unlink()


def _folder_of(folder: Path, job: str) -> Path:
    return folder / _safe(job or "run")


def _safe(text: str) -> str:
    """As a file's name; a job's name is one, if it is not of the longest in rare letters."""
    if _SAFE.fullmatch(text) and len(text.encode()) <= _NAME_MAX:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
