"""What every subcommand of the agent opens first: the configuration, a vCenter, the repository.

Decides where the configuration is looked for and which credential opens the repository.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import Settings
from backpoint_agent.settings.read import read_settings_file
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo import repository
from backpoint_repo.config import read_config
from backpoint_repo.credential import read_credential
from backpoint_repo.errors import UsageError
from backpoint_repo.opening import credential_from
from backpoint_repo.store.local import LocalStore

VARIABLE: Final = "BACKPOINT_CONFIG"


def read_settings(args: argparse.Namespace) -> Settings:
    """The file at -c or BACKPOINT_CONFIG. Raises ConfigMistakes, UsageError."""
    path = args.config or os.environ.get(VARIABLE)
    if not path:
        raise UsageError(f"which configuration? Give -c FILE or set {VARIABLE}")
    return read_settings_file(Path(path))


def connect(settings: Settings, name: str, stop: Stop) -> VCenter:
    """Log in to the vCenter that the configuration calls `name`."""
    return VCenter(settings.vcenters[name], stop)


def open_repository(settings: Settings) -> repository.Repository:
    """Open the repository as the configuration says. Raises KeyFault and what opening raises."""
    store = LocalStore(Path(settings.repository.path))
    read_config(store)
    return repository.open_repository(store, _credential(settings))


def _credential(settings: Settings) -> repository.Credential:
    if settings.repository.credential is not None:
        return read_credential(settings.repository.credential)
    if settings.repository.passphrase is not None:
        return repository.Passphrase(
            read_secret(settings.repository.passphrase, "repository passphrase")
        )
    return credential_from(os.environ)
