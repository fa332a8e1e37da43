"""What is left of a run when it is over: its record as a file, the metrics file, and a mail.

Decides where they go and that none of the three can spoil the others: a run that went well does not
fail because a mail could not be sent; what could not be told is said on stderr.
"""

from __future__ import annotations

import traceback

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.mail import send_mail
from backpoint_agent.report.metrics import write_metrics
from backpoint_agent.report.records import save_record
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder
from backpoint_repo.errors import BackpointError
from backpoint_repo.terminal import warn


def report_run(settings: Settings, state: StateFolder, record: RunRecord) -> None:
    """Raises nothing."""
    for what, tell in (
        ("its record", lambda: save_record(settings, state, record)),
        ("the metrics", lambda: write_metrics(settings, state, record)),
        ("the mail", lambda: send_mail(settings, record)),
    ):
        try:
            tell()
        except (BackpointError, OSError) as error:
            warn(f"run {record.number}: {what} could not be written or sent: {error}")
        except Exception as error:
            # A bug of a report must not end the scheduler: there are backups to make.
            traceback.print_exc()
            bug = f"a bug in backpoint: {type(error).__name__}"
            warn(f"run {record.number}: {what} could not be written or sent: {bug}")
