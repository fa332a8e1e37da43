"""The metrics file: what Prometheus' node exporter reads, of all VMs of all jobs.

Made anew after each run out of the records of all jobs that the configuration has, so that nothing
is lost of runs that end together, and nothing stays of VMs and jobs that are gone. Decides when it
is written and who may read it; what is in it is decided in `metrics_text.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.local_zone import LocalZone
from backpoint_agent.report.folder_turn import turn
from backpoint_agent.report.history import JobHistory, read_history
from backpoint_agent.report.metrics_text import metrics_text
from backpoint_agent.report.records import read_records, records_folder
from backpoint_agent.report.standing import plan_standings
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder
from backpoint_repo.durable_file import write_durably
from backpoint_repo.terminal import warn

_LATELY: Final = 8
"""Among so many of the last records one is looked for that was just saved."""


def metrics_path(settings: Settings, state: StateFolder) -> Path:
    """Where the file is."""
    return settings.report.prometheus or state.path / "backpoint.prom"


def write_metrics(settings: Settings, state: StateFolder, record: RunRecord) -> None:
    """Write the file anew. record: the run that ended now; it counts although it was not saved.

    Every user may read the file: it has nothing secret. Raises Busy, OSError.
    """
    with turn(state.path / ".metrics.lock"):
        folder = records_folder(settings, state)
        histories: list[JobHistory] = []
        for job in settings.jobs:
            records = read_records(folder, job, warn)
            if job == record.job:
                records = _with(record, records)
            histories.append(read_history(job, records))
        now = datetime.fromtimestamp(record.ended, LocalZone())
        standings = plan_standings(settings, histories, now)
        text = metrics_text(settings, histories, standings)
        write_durably(metrics_path(settings, state), text, 0o644)


def _with(record: RunRecord, saved: Iterator[RunRecord]) -> Iterator[RunRecord]:
    lately = list(islice(saved, _LATELY))
    if all(known.number != record.number for known in lately):
        lately.insert(0, record)
    return chain(lately, saved)
