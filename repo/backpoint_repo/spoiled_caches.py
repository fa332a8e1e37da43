"""What else only saves time, or has served its time, and may go when it is spoiled.

Catalogue objects that do not open, damage marks that do not open or whose packs are all gone, and
files that a crash left in a local store's `tmp`. Decides what of these is spoiled; who deletes it
is the caller. What a newer program wrote is not spoiled.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from backpoint_repo.errors import ObjectDamaged, ObjectMissing, StoreUnavailable, UnknownFormat
from backpoint_repo.format import ID_SIZE, Kind, object_key
from backpoint_repo.index_segment import PackRef
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.store.contract import Store
from backpoint_repo.store.local import TEMPORARY, LocalStore
from backpoint_repo.trash import pack_of

ABANDONED_S: Final = 86400.0
"""Age of a file that nobody is still writing: each is one object, of tens of megabytes."""
_NAME: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Spoiled:
    """what: its key, or its path. advice: what the user should do now, or nothing."""

    what: str
    why: str
    delete: Callable[[], None]
    advice: str = ""


def find_spoiled(
    sealed: SealedStore, packs: Callable[[], Collection[PackRef]], now: float
) -> Iterator[Spoiled]:
    """packs: lists those in the store; called after damage marks were read. Raises what a store
    raises."""
    yield from _catalogue(sealed)
    yield from _marks(sealed, packs)
    yield from _abandoned(sealed.store, now)


def _catalogue(sealed: SealedStore) -> Iterator[Spoiled]:
    for name in list(sealed.names(Kind.CATALOG)):
        with contextlib.suppress(ObjectMissing, UnknownFormat):
            try:
                sealed.get_record(Kind.CATALOG, name).items("points", list)
            except ObjectDamaged as error:
                yield _object(sealed, Kind.CATALOG, name, str(error))


def _marks(sealed: SealedStore, packs: Callable[[], Collection[PackRef]]) -> Iterator[Spoiled]:
    marked: dict[str, set[PackRef]] = {}
    for name in list(sealed.names(Kind.DAMAGE)):
        with contextlib.suppress(ObjectMissing, UnknownFormat):
            try:
                copies = sealed.get_record(Kind.DAMAGE, name).items("copies", bytes)
                key = object_key(Kind.DAMAGE, name)
                marked[name] = {pack_of(copy[ID_SIZE:], key) for copy in copies}
            except ObjectDamaged as error:
                advice = (
                    "which chunks it marked as damaged is not known any more: run `backpoint "
                    "scrub --oldest-first` or `backpoint check --read-data` to find them again"
                )
                yield _object(sealed, Kind.DAMAGE, name, str(error), advice)
    there = set(packs()) if marked else set()
    for name, named in marked.items():
        if not named & there:
            yield _object(sealed, Kind.DAMAGE, name, "marks only packs that are gone")


def _abandoned(store: Store, now: float) -> Iterator[Spoiled]:
    if not isinstance(store, LocalStore):
        return
    folder = Path(store.address) / TEMPORARY
    try:
        paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        for path in sorted(paths):
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and now - found.st_mtime > ABANDONED_S:
                    yield Spoiled(str(path), "left by a crash", partial(_unlink, path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnavailable(f"cannot read {folder}: {error.strerror}") from error


def _object(sealed: SealedStore, kind: Kind, name: str, why: str, advice: str = "") -> Spoiled:
    return Spoiled(object_key(kind, name), why, partial(sealed.delete, kind, name), advice)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"cannot delete {path}: {error.strerror}") from error
