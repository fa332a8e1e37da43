"""Which due time of each job was dealt with last, kept over restarts in one small file.

Written before a job is started: a crash then costs a run, which is reported, and never makes two.
A file that cannot be understood is told and counts as empty.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backpoint_repo.durable_file import write_durably
from backpoint_repo.errors import UsageError
from backpoint_repo.terminal import warn

_NAME: Final = "schedule.json"
_SIZE_MAX: Final = 1 << 20


def read_dealt_with(state: Path) -> dict[str, datetime]:
    """By name of job; empty where there is no file yet. Raises UsageError."""
    path = state / _NAME
    try:
        with path.open("rb") as file:
            data = file.read(_SIZE_MAX)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        record = json.loads(data)
        return {str(job): datetime.fromtimestamp(float(at), UTC) for job, at in record.items()}
    except (ValueError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
        warn(f"{path} is damaged: which jobs ran last is not known; each waits for its next time")
        return {}


def write_dealt_with(state: Path, dealt_with: dict[str, datetime]) -> None:
    """Durable when it returns, old or new and nothing between. Raises UsageError."""
    path = state / _NAME
    record = {job: at.timestamp() for job, at in dealt_with.items()}
    try:
        write_durably(path, json.dumps(record).encode(), 0o600)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
