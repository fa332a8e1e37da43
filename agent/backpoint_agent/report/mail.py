"""Placeholder."""

from __future__ import annotations

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.settings.model import Settings


def send_mail(settings: Settings, record: RunRecord) -> None:
    """Being written."""
