"""The records of runs, a folder for each job: one of every five minutes pushes no weekly one out.

Decides how many are kept and what a job's folder is called. Refuses to know what a record means.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.numbered_files import read_numbered, save_numbered
from backpoint_agent.report.record_form import decode_run
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder, make_private_folder

KEPT: Final = 1000
"""Records of one job."""

_SAFE: Final = re.compile(r"\w[\w.-]*")
_NAME_MAX: Final = 200


def records_folder(settings: Settings, state: StateFolder) -> Path:
    """Where all jobs' records are."""
    return settings.report.records or state.runs


def save_record(
    settings: Settings, state: StateFolder, record: RunRecord, *, kept: int = KEPT
) -> Path:
    """Write the record, durably, and delete the job's oldest beyond `kept`; where it is.

    Raises UsageError where others may write to the folder, Busy, OSError.
    """
    folder = records_folder(settings, state)
    make_private_folder(folder)
    own = _folder_of(folder, record.job)
    return save_numbered(own, _safe(record.number), record.record(), kept)


def read_records(folder: Path, job: str, tell: Callable[[str], object]) -> Iterator[RunRecord]:
    """The job's records, the last saved first, each read when it is asked for.

    folder: `records_folder`. tell: called with a sentence for each that cannot be read; it is
    passed over. Raises nothing.
    """
    for path, content in read_numbered(_folder_of(folder, job), tell):
        try:
            record = decode_run(content)
            if record.job != job:
                raise ValueError(f"it is of the job {record.job}")
        except ValueError as error:
            tell(f"{path} is damaged: {error}; it is passed over")
        else:
            yield record


def _folder_of(folder: Path, job: str) -> Path:
    return folder / _safe(job or "run")


def _safe(text: str) -> str:
    """As a file's name; a job's name is one, if it is not of the longest in rare letters."""
    if _SAFE.fullmatch(text) and len(text.encode()) <= _NAME_MAX:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
