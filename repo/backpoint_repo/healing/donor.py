"""What `--from` names, opened: a disk, or a repository with these keys or with others.

Decides which it is by what is there, and which credential opens a repository: its own, from
BACKPOINT_FROM_ variables or a person; for a byte copy of this repository this one's keys will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from backpoint_repo.config import read_config
from backpoint_repo.credential import read_credential
from backpoint_repo.errors import ObjectDamaged, OwnerKeyNeeded, UsageError
from backpoint_repo.exclusions import read_exclusions
from backpoint_repo.format import CONFIG_KEY
from backpoint_repo.healing.live_source import LiveSource
from backpoint_repo.healing.other_repository import OtherRepository
from backpoint_repo.healing.stored_copies import StoredCopies
from backpoint_repo.healing.way import Way
from backpoint_repo.replica import same_keys
from backpoint_repo.repository import Credential, Passphrase, Repository, open_repository
from backpoint_repo.secret_source import SecretSource, refuse_several
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.source.detect import open_image
from backpoint_repo.source.qemu_nbd import QemuImage
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import LocalStore

FROM_CREDENTIAL: Final = "BACKPOINT_FROM_CREDENTIAL"
_FROM_PASSPHRASE: Final = "BACKPOINT_FROM_PASSPHRASE"


@contextmanager
def opened_donor(
    repository: Repository,
    place: Path | Store,
    environment: Mapping[str, str],
    *,
    format_name: str | None,
    quick: bool,
) -> Iterator[Way]:
    """Raises UsageError, SourceError, KeyFault and what opening a repository raises.

    place: a disk, a folder with a repository, or the store that one lies in. format_name: an
    image's, where its content is not to be asked.
    """
    if not isinstance(place, Path):
        yield _from_repository(repository, place, environment)
        return
    if place.is_dir():
        if not (place / CONFIG_KEY).exists():
            raise UsageError(f"{place} is a folder and no repository; --from takes a disk or one")
        yield _from_repository(repository, LocalStore(place), environment)
        return
    source = _open_source(place, format_name)
    try:
        yield LiveSource(repository, source, quick=quick)
    finally:
        source.close()


def _from_repository(repository: Repository, store: Store, environment: Mapping[str, str]) -> Way:
    if _real(store) == _real(repository.sealed.store):
        raise UsageError(f"{store.address} is the repository that is to be healed")
    other = _opened(repository, store, environment)
    if same_keys(repository, other):
        return twin_copies(repository, other)
    if other.sealed.keyring.owner_private is None:
        raise OwnerKeyNeeded(
            f"{store.address} has other keys than this repository, so its disks must be read: that "
            f"needs its owner's passphrase or recovery key ({_FROM_PASSPHRASE} and its like)"
        )
    return OtherRepository(repository, other)


def _real(store: Store) -> str:
    """Its address; of a folder the one without links."""
    folder = Path(store.address)
    return str(folder.resolve()) if folder.is_absolute() else store.address


def twin_copies(repository: Repository, twin: Repository) -> StoredCopies:
    """A way to heal from a byte copy of the repository. Raises what a store raises."""
    keyring = repository.sealed.keyring
    # One of the two may be open with the owner's key, and it opens both.
    sealed = twin.sealed if keyring.owner_private is None else replace(twin.sealed, keyring=keyring)
    if sealed.keyring.owner_private is None:
        twin.index.exclude(read_exclusions(twin.sealed))
    twin.index.refresh()
    twin.index.learn_unlisted_packs()
    return StoredCopies(f"from {twin.sealed.store.address}", sealed, twin.index, own=False)


def _opened(repository: Repository, store: Store, environment: Mapping[str, str]) -> Repository:
    unverified = read_config(store)
    source = SecretSource(
        _FROM_PASSPHRASE, f"passphrase of {store.address}", environment, (FROM_CREDENTIAL,)
    )
    path = environment.get(FROM_CREDENTIAL)
    chosen = ([FROM_CREDENTIAL] if path else []) + source.chosen()
    refuse_several(chosen)
    ours = repository.sealed
    if not chosen and unverified.config.repository_id == ours.repository_id:
        config = unverified.verified(ours.keyring.config_key)
        if config.owner_public != ours.keyring.owner_public:
            raise ObjectDamaged(f"{store.address}: its {CONFIG_KEY} names another owner's key")
        return Repository(replace(ours, store=store), config, repository.clock)
    credential: Credential = read_credential(Path(path)) if path else Passphrase(source.read())
    return open_repository(store, credential, repository.clock)


def _open_source(place: Path, format_name: str | None) -> ImageSource:
    if format_name is None:
        return open_image(place)
    return RawImage(place) if format_name == "raw" else QemuImage(place, format_name)
