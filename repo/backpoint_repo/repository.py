"""A repository, opened: wires store, keys, index, catalogue and readers together. Decides nothing
else.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from backpoint_repo.backup_session import BackupSession, SessionParts
from backpoint_repo.block_place import BlockPlace
from backpoint_repo.catalog import Catalog, read_point
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.chunk_reader import ChunkReader, WantedChunk
from backpoint_repo.chunking import ChunkParameters, Cutter
from backpoint_repo.config import REPOSITORY_ID_SIZE, Config, UnverifiedConfig, read_config
from backpoint_repo.credential import AgentCredential
from backpoint_repo.disk_map import DiskMap
from backpoint_repo.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreUnavailable,
    UsageError,
)
from backpoint_repo.features import refuse_unknown_features
from backpoint_repo.format import CONFIG_KEY, Kind
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.in_threads import side_by_side
from backpoint_repo.index import Index
from backpoint_repo.key_slots import ScryptCost, add_slot, drop_strange_slots, open_with
from backpoint_repo.keyring import SECRET_SIZE, Keyring, owner_public_of
from backpoint_repo.node_reader import NodeReader
from backpoint_repo.parent_point import given_point, newest_point
from backpoint_repo.point import ConfigFile, Disk, Point
from backpoint_repo.sealed_store import SealedStore
from backpoint_repo.sealing import Packer
from backpoint_repo.segment_cache import CachePlace, SegmentCache
from backpoint_repo.store.contract import Store

ZSTD_LEVEL = 1


@dataclass(frozen=True)
class Passphrase:
    """The owner's way in: a passphrase, or a recovery key as it is written down."""

    text: str

    def __repr__(self) -> str:
        return "Passphrase(...)"


Credential = Passphrase | AgentCredential


class Repository:
    """An open repository. Thread-safe for reading; each backup session is its own object."""

    def __init__(
        self,
        sealed: SealedStore,
        config: Config,
        clock: Callable[[], float] = time.time,
        cache: SegmentCache | None = None,
    ) -> None:
        self.sealed = sealed
        self.config = config
        self.clock = clock
        self.index = Index(sealed, cache)
        self.catalog = Catalog(sealed)
        self.nodes = NodeReader(sealed, self.index)
        self.chunks = ChunkReader(sealed, self.index)
        self._cutter = Cutter(sealed.keyring.cut_key, config.chunks)

    def begin_backup(self, vm: str, parent: bytes | None = None) -> BackupSession:
        """A session that will make one point of this VM; several may be under way at once.

        parent: id of the point that the new one stands on, which may be another VM's; by default
        the VM's newest. Raises ObjectMissing where it is gone.
        """
        # Once for all sessions: each goes on from what is known here.
        _, stood_on = side_by_side(
            self.sealed.store.lanes, self.index.refresh, lambda: self._parent_of(vm, parent)
        )
        index = self.index.fork()
        parts = SessionParts(self.sealed, index, self.catalog, self.nodes, self._cutter, self.clock)
        return BackupSession(parts, vm, stood_on)

    def _parent_of(self, vm: str, parent: bytes | None) -> Point | None:
        refuse_unknown_features(self.sealed.store)
        if parent is None:
            return newest_point(self.sealed, self.catalog, vm)
        return given_point(self.sealed, parent)

    def point(self, point_id: bytes) -> Point:
        """Raises ObjectMissing, ObjectDamaged, UnknownFormat."""
        point = read_point(self.sealed, point_id)
        if point is None:
            raise ObjectMissing(f"points/{point_id.hex()} was revoked; there is no such point")
        return point

    def disk_map(self, disk: Disk) -> DiskMap:
        """Where each chunk of the disk is. Raises ObjectDamaged."""
        return DiskMap(disk.size, disk.root, self.nodes.load, self.nodes.bringing)

    def open_disk(self, disk: Disk, cache: ChunkCache) -> ImageReader:
        """Random reads of a stored disk."""
        return ImageReader(self.disk_map(disk), self.chunks, cache)

    def read_file(self, file: ConfigFile) -> bytes:
        """A configuration file of a point. Raises as `ChunkReader.read`."""
        lengths = map(file.stored_length, range(len(file.chunks)))
        places = self.chunks.locate(file.chunks) if file.chunks else []
        wanted = map(WantedChunk, file.chunks, lengths, places)
        return b"".join(self.chunks.read(list(wanted)))[: file.size]


def create_repository(
    store: Store,
    passphrase: Passphrase,
    chunks: ChunkParameters,
    *,
    cost: ScryptCost | None = None,
    clock: Callable[[], float] = time.time,
) -> Repository:
    """Make a repository with one key slot. Raises UsageError where there is one already."""
    owner_private = secrets.token_bytes(SECRET_SIZE)
    keyring = Keyring(
        secrets.token_bytes(SECRET_SIZE), owner_public_of(owner_private), owner_private
    )
    config = Config(secrets.token_bytes(REPOSITORY_ID_SIZE), clock(), chunks, keyring.owner_public)
    sealed = SealedStore(store, keyring, config.repository_id, Packer(ZSTD_LEVEL))
    _refuse_existing(store)
    # The slot first: a configuration that nobody can open would make a place unusable.
    slot = add_slot(sealed, passphrase.text, "first passphrase", cost or ScryptCost(), clock())
    encoded = config.encode(keyring.config_key)
    try:
        store.put(CONFIG_KEY, [encoded])
    except ObjectExists:
        # Ours, where only the answer to an earlier try was lost. Where the store did not answer at
        # all the slot stays: it may be needed, and else the next who makes one here drops it.
        if store.get(CONFIG_KEY) != encoded:
            with contextlib.suppress(StoreUnavailable):
                sealed.delete(Kind.SLOT, slot.slot_id)
            raise UsageError(f"there is a repository at {store.address} already") from None
    with contextlib.suppress(StoreUnavailable):
        drop_strange_slots(sealed)
    return Repository(sealed, config, clock)


def open_repository(
    store: Store,
    credential: Credential,
    clock: Callable[[], float] = time.time,
    caches: CachePlace | None = None,
    blocks: BlockPlace | None = None,
    read: UnverifiedConfig | None = None,
) -> Repository:
    """caches: where this machine may keep a large index; without it, it is held in memory. blocks:
    where it may keep what is read; not for whoever has to see what the store itself has. read: the
    configuration, where it was read already.

    Raises NotARepository, WrongPassphrase, KeyFault, ObjectDamaged, UnknownFormat; UsageError where
    a place that somebody named cannot be used.
    """
    unverified = read or read_config(store)
    if isinstance(credential, Passphrase):
        keyring = open_with(store, unverified.config, credential.text)
    else:
        keyring = credential.keyring(unverified.config)
    config = unverified.verified(keyring.config_key)
    if isinstance(credential, AgentCredential):
        credential.check_owner(config)
    private = keyring.owner_private
    if private is not None and owner_public_of(private) != config.owner_public:
        # An agent can make a valid MAC; only the owner can tell whose public key this is.
        raise ObjectDamaged(
            f"{CONFIG_KEY}: names a public key that is not the owner's: whoever holds an agent "
            "credential has swapped it, and backups made since are sealed to somebody else"
        )
    if blocks is not None:
        store = blocks.over(store, config.repository_id, keyring.meta_key)
    sealed = SealedStore(store, keyring, config.repository_id, Packer(ZSTD_LEVEL))
    cache = caches.of(config.repository_id, store.address, keyring.meta_key) if caches else None
    return Repository(sealed, config, clock, cache)


def _refuse_existing(store: Store) -> None:
    try:
        store.size(CONFIG_KEY)
    except ObjectMissing:
        return
    raise UsageError(f"there is a repository at {store.address} already")
