"""Which repository a live VM's session stands on, and how it is opened, here and by a child.

Decides that a user's word (-r, the environment) goes before the configuration's, and that a
passphrase that was typed is typed once: children get it in their environment, which only this user
can see.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import RepositorySettings
from backpoint_repo.config import read_config
from backpoint_repo.opening import CREDENTIAL, REPOSITORY, credential_from, owner_source
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.segment_cache import cache_place
from backpoint_repo.store.address import open_store

_PASSPHRASE: Final = "BACKPOINT_PASSPHRASE"


@dataclass(frozen=True)
class RepositoryAccess:
    """path: of the repository. environment: of children, and for opening it here."""

    path: str
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        return f"RepositoryAccess({self.path!r})"

    def open(self) -> tuple[Repository, RepositoryAccess]:
        """The repository, and the access for children, who need not ask again.

        Raises KeyFault, UsageError, and what opening raises.
        """
        store = open_store(self.path, self.environment)
        read_config(store)
        credential = credential_from(self.environment)
        opened = open_repository(store, credential, caches=cache_place(self.environment))
        if isinstance(credential, Passphrase) and not owner_source(self.environment).chosen():
            typed = {**self.environment, _PASSPHRASE: credential.text}
            return opened, replace(self, environment=typed)
        return opened, self


def repository_access(
    given: str | None,
    settings: RepositorySettings | None,
    environment: Mapping[str, str] = os.environ,
) -> RepositoryAccess:
    """given: the user's -r, or where a session is known to be. settings: of the configuration.

    Raises KeyFault where the configuration's passphrase cannot be read.
    """
    path = given or environment.get(REPOSITORY) or (settings.path if settings else "")
    if owner_source(environment).chosen() or settings is None or settings.passphrase is None:
        return RepositoryAccess(path, environment)
    others = {name: value for name, value in environment.items() if name != CREDENTIAL}
    secret = settings.passphrase
    if secret.file is not None:
        return RepositoryAccess(path, {**others, f"{_PASSPHRASE}_FILE": str(secret.file)})
    if secret.command is not None:
        return RepositoryAccess(path, {**others, f"{_PASSPHRASE}_COMMAND": secret.command})
    text = read_secret(secret, "repository passphrase", environment=environment)
    return RepositoryAccess(path, {**others, _PASSPHRASE: text})
