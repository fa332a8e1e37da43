"""What the agent's subcommands open first: the configuration, a vCenter, the repository, an office.

Decides which credential opens the repository, and what a process that runs jobs holds meanwhile.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import read_settings_file, settings_path
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo import repository
from backpoint_repo.config import read_config
from backpoint_repo.credential import read_credential
from backpoint_repo.opening import credential_from
from backpoint_repo.segment_cache import cache_place
from backpoint_repo.store.address import open_store

if TYPE_CHECKING:
    from backpoint_agent.jobs.office import Office


def read_settings(args: argparse.Namespace) -> Settings:
    """The file at -c or BACKPOINT_CONFIG. Raises ConfigMistakes, UsageError."""
    return read_settings_file(settings_path(args.config, os.environ))


def connect(settings: Settings, name: str, stop: Stop) -> VCenter:
    """Log in to the vCenter that the configuration calls `name`."""
    return VCenter(settings.vcenters[name], stop)


def open_repository(settings: Settings) -> repository.Repository:
    """Open the repository as the configuration says. Raises KeyFault and what opening raises."""
    store = open_store(settings.repository.path, os.environ, settings.store.tables())
    read_config(store)
    caches = cache_place(os.environ)
    return repository.open_repository(store, _credential(settings), caches=caches)


@contextmanager
def open_office(settings: Settings, *, as_json: bool) -> Iterator[Office]:
    """Repository, state folder and ledger, and somebody on stderr who tells how far jobs are.

    Raises KeyFault, UsageError and what opening a repository raises.
    """
    import time

    from backpoint_agent.jobs.office import Office
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.report.live import live_watcher
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_repo.process_tuning import tune_for_chunks

    opened = open_repository(settings)
    tune_for_chunks()
    state = make_state_folder(settings.state)
    with Ledger(state.ledger) as ledger, live_watcher(as_json=as_json) as watcher:
        yield Office(settings, state, opened, ledger, watcher, Stop(), time.time)


def _credential(settings: Settings) -> repository.Credential:
    if settings.repository.credential is not None:
        return read_credential(settings.repository.credential)
    if settings.repository.passphrase is not None:
        return repository.Passphrase(
            read_secret(settings.repository.passphrase, "repository passphrase")
        )
    return credential_from(os.environ)
