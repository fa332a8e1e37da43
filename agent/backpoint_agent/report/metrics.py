"""Placeholder."""

from __future__ import annotations

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder


def write_metrics(settings: Settings, state: StateFolder, record: RunRecord) -> None:
    """Being written."""
