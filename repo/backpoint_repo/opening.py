"""Which repository a command works on, and with which credential it is opened.

The address comes from -r or BACKPOINT_REPO; the credential from the environment or a person (see
`secret_source.py`), never from arguments. Every command that needs a repository calls `open_from`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from backpoint_repo.block_place import BlockPlace
from backpoint_repo.cache_options import block_place
from backpoint_repo.config import read_config
from backpoint_repo.credential import read_credential
from backpoint_repo.errors import KeyFault, OwnerKeyNeeded, UsageError, WrongPassphrase
from backpoint_repo.repository import Credential, Passphrase, Repository, open_repository
from backpoint_repo.secret_source import SecretSource, refuse_several
from backpoint_repo.segment_cache import cache_place
from backpoint_repo.store.address import open_store
from backpoint_repo.store.contract import Store
from backpoint_repo.store.place import is_address
from backpoint_repo.store.settings import read_store_file
from backpoint_repo.terminal import say

REPOSITORY: Final = "BACKPOINT_REPO"
CREDENTIAL: Final = "BACKPOINT_CREDENTIAL"
_OTHER: Final = "BACKPOINT_TO"


def store_from(args: argparse.Namespace) -> Store:
    """The store at -r or BACKPOINT_REPO. Raises UsageError where neither is given."""
    address = args.repo or os.environ.get(REPOSITORY)
    if not address:
        raise UsageError(f"which repository? Give -r REPO or set {REPOSITORY}")
    return store_at(args, address)


def store_at(args: argparse.Namespace, address: str) -> Store:
    """The store at an address, which may be another one than -r names.

    How an object store is reached says the [store] table of the file at --settings, or of
    BACKPOINT_CONFIG; else the environment. Raises what `open_store` raises.
    """
    settings = getattr(args, "settings", None)
    tables = read_store_file(Path(settings)) if settings and is_address(address) else None
    return open_store(address, os.environ, tables)


def credential_from(environment: Mapping[str, str]) -> Credential:
    """An agent credential, or the owner's passphrase or recovery key. Raises KeyFault."""
    source = owner_source(environment)
    credential = environment.get(CREDENTIAL)
    refuse_several(([CREDENTIAL] if credential else []) + source.chosen())
    if credential:
        return read_credential(Path(credential))
    return Passphrase(source.read())


def owner_source(environment: Mapping[str, str]) -> SecretSource:
    """Where the owner's passphrase comes from."""
    return SecretSource("BACKPOINT_PASSPHRASE", "passphrase", environment, (CREDENTIAL,))


def new_source(environment: Mapping[str, str]) -> SecretSource:
    """Where a new passphrase comes from when keys are added or changed."""
    return SecretSource("BACKPOINT_NEW_PASSPHRASE", "new passphrase", environment)


def first_passphrase(environment: Mapping[str, str]) -> Passphrase:
    """The passphrase of a repository that is being made. Raises KeyFault."""
    if environment.get(CREDENTIAL):
        raise KeyFault(f"{CREDENTIAL} is set: a repository is made by its owner, with a passphrase")
    return Passphrase(owner_source(environment).read(twice=True))


def open_from(args: argparse.Namespace) -> Repository:
    """The repository the arguments and the environment name, opened.

    Raises UsageError, KeyFault and what `open_repository` raises.
    """
    return _opened(args, store_from(args), credential_from)


def open_cached_from(args: argparse.Namespace, *, keeps_data: bool = True) -> Repository:
    """The same, read through the cache of this machine that the arguments choose: for who wants
    data, and not to know what the store has. keeps_data: also what nobody asked to cache."""
    store = store_from(args)
    place = block_place(args, os.environ, remote=store.lanes > 1, keeps_data=keeps_data)
    return _opened(args, store, credential_from, place)


def open_other(args: argparse.Namespace, address: str) -> Repository:
    """The repository at `address`, which is not the one that -r names; raises as `open_from`.

    Its credential comes from BACKPOINT_TO_PASSPHRASE (_FILE, _COMMAND) or BACKPOINT_TO_CREDENTIAL;
    where none is set, from where that of -r comes from.
    """
    try:
        return _opened(args, store_at(args, address), _other_credential)
    except WrongPassphrase as error:
        told = f"{address}: {error}; {_OTHER}_PASSPHRASE, or _FILE or _COMMAND, is for that place"
        raise WrongPassphrase(told) from error


def _opened(
    args: argparse.Namespace,
    store: Store,
    credential: Callable[[Mapping[str, str]], Credential],
    blocks: BlockPlace | None = None,
) -> Repository:
    # Before anybody is asked for a passphrase to a place that has no use for it.
    config = read_config(store)
    caches = cache_place(os.environ, say if args.verbose else lambda _: None)
    return open_repository(store, credential(os.environ), caches=caches, blocks=blocks, read=config)


def _other_credential(environment: Mapping[str, str]) -> Credential:
    source = SecretSource(f"{_OTHER}_PASSPHRASE", "passphrase of the other repository", environment)
    credential = environment.get(f"{_OTHER}_CREDENTIAL")
    chosen = ([f"{_OTHER}_CREDENTIAL"] if credential else []) + source.chosen()
    refuse_several(chosen)
    if credential:
        return read_credential(Path(credential))
    return Passphrase(source.read()) if chosen else credential_from(environment)


def require_owner(repository: Repository, doing: str) -> None:
    """Raises OwnerKeyNeeded with the agent credential. doing: `restoring a disk`."""
    if repository.sealed.keyring.owner_private is None:
        raise OwnerKeyNeeded(
            f"{doing} needs the owner's passphrase or recovery key; {CREDENTIAL} holds an agent "
            "credential, which can make backups but cannot read them"
        )


def require_passphrase(credential: Credential) -> Passphrase:
    """Raises OwnerKeyNeeded where it is the agent credential."""
    if not isinstance(credential, Passphrase):
        raise OwnerKeyNeeded(
            f"changing a passphrase needs that passphrase, not the agent credential ({CREDENTIAL})"
        )
    return credential
