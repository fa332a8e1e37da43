"""What the jobs of one agent process share: configuration, repository, ledger, and what runs now.

Opened once, for any number of jobs. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from backpoint_agent.jobs.pace import Claim
from backpoint_agent.ledger import Ledger
from backpoint_agent.running.parts import Watcher
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import StateFolder
from backpoint_agent.stopping import Stop
from backpoint_repo.repository import Repository


@dataclass
class Office:
    """running: what VMs that run now take, of all jobs; of the thread that trio runs in.
    stop: of the whole process. clock: seconds since 1970."""

    settings: Settings
    state: StateFolder
    repository: Repository
    ledger: Ledger
    watcher: Watcher
    stop: Stop
    clock: Callable[[], float]
    running: list[Claim] = field(default_factory=list)
