"""What the jobs of one agent process share: configuration, repository, ledger, and what runs now.

Opened once, for any number of jobs. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backpoint_agent.jobs.line import Line
from backpoint_agent.ledger import Ledger
from backpoint_agent.running.parts import Watcher
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder
from backpoint_agent.stopping import Stop
from backpoint_repo.repository import Repository


@dataclass(frozen=True)
class Office:
    """line: the VMs of all jobs. stop: of the whole process. clock: seconds since 1970, which may
    jump."""

    settings: Settings
    state: StateFolder
    repository: Repository
    ledger: Ledger
    watcher: Watcher
    stop: Stop
    clock: Callable[[], float]
    line: Line = field(default_factory=Line)
