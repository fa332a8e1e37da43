"""A mount from its beginning to its end: parts wired, kernel told, signals heeded, all given back.

Decides mount options and the order of starting and stopping. Whether it happens in the background
is for the command.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from backpoint_fusefs.attributes import Owner
from backpoint_fusefs.catalog_watch import CatalogWatch
from backpoint_fusefs.decode_workers import WORKERS, DecodeWorkers
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.kernel_notices import tell_kernel
from backpoint_fusefs.kernel_readahead import raise_read_ahead
from backpoint_fusefs.live.mounted.live_sessions import LiveSessions
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.mount_lease import MountLease
from backpoint_fusefs.mount_point import SUBTYPE, find_mount
from backpoint_fusefs.open_file import PrefetchBudget
from backpoint_fusefs.operations import MountOperations
from backpoint_fusefs.point_realm import MountParts
from backpoint_fusefs.point_shelf import PointShelf
from backpoint_fusefs.readahead import depth_of
from backpoint_fusefs.realms import Realms
from backpoint_fusefs.told_once import ToldOnce
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import RepositoryError, UsageError
from backpoint_repo.repository import Repository
from backpoint_repo.store.cached_store import settle

_PREFETCH_SHARE: Final = 4
"""Prefetching may fill a quarter of the cache, so that it never drops what it just fetched."""
_AHEAD_SHARE: Final = 2
"""What a boot is expected to read may fill half of it: it is read soon, or was expected in vain."""
_LOG = logging.getLogger("backpoint.mount")


@dataclass(frozen=True)
class MountPlan:
    """mount_point: as the mount table writes it. cache_size: bytes of decoded chunks.

    shared: every user of the machine may read the mount, not only the one who mounts. streams:
    large alternate streams of NTFS are shown as files. live: the home of sessions, which are shown
    writable; None: nothing can be written. block_device: a loop device with a filesystem's UUID to
    mount on (`fuseblk`), so that NFS servers know the mount again after a restart; only root may.
    """

    repository: Repository
    mount_point: Path
    cache_size: int
    shared: bool = False
    streams: bool = False
    live: Path | None = None
    block_device: str | None = None


def serve_mount(plan: MountPlan, ready: Callable[[], None]) -> None:
    """Mount, call `ready` once the mount answers, and return when it has ended.

    It ends by `umount`, SIGTERM or SIGINT. Raises UsageError where the kernel refuses, and what a
    store raises before the mount is made.
    """
    try:
        trio.run(_serve, plan, ready)
    finally:
        settle(plan.repository.sealed.store)


async def _serve(plan: MountPlan, ready: Callable[[], None]) -> None:
    home = None if plan.live is None else SessionHome(plan.live, plan.repository)
    parts = await _parts(plan, home)
    sessions = None if home is None else _sessions(plan, home, parts)
    realms = Realms(parts, ParserPool(streams=plan.streams), sessions)
    watch = parts.watch
    # Until all is given back: a bound child gets a SIGTERM for each thread of a parent that dies,
    # and the second must not end it half way.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        _mount(MountOperations(realms.of, realms.writable_of, watch, parts.tell), plan)
        try:
            async with trio.open_nursery() as nursery:
                if sessions is not None:
                    await nursery.start(sessions.run)
                nursery.start_soon(_end_at, signals)
                nursery.start_soon(watch.run, tell_kernel)
                nursery.start_soon(realms.places.run)
                nursery.start_soon(parts.lease.run)
                nursery.start_soon(_know_index, plan.repository)
                nursery.start_soon(_when_it_answers, plan.mount_point, ready)
                await pyfuse3.main()
                nursery.cancel_scope.cancel()
        finally:
            # Lazily where files are open: a process told to end must not hang on its readers.
            pyfuse3.close(unmount=True)
            realms.places.close()
            if sessions is not None:
                # What was written to them reaches the disk, and others may have them.
                sessions.close()
            parts.workers.close()
        _LOG.info("%s is unmounted", plan.mount_point)


async def _parts(plan: MountPlan, home: SessionHome | None) -> MountParts:
    changed = None if home is None else partial(_changed, home.folder)
    watch = CatalogWatch(plan.repository.catalog, live=changed)
    await trio.to_thread.run_sync(_load, watch)
    lanes = plan.repository.sealed.store.lanes
    # Where each request waits for a network, so do the threads: some stay free for who cannot wait.
    workers, windows = (WORKERS, 2 * WORKERS) if lanes == 1 else (WORKERS + lanes, lanes)
    return MountParts(
        watch,
        PointShelf(plan.repository, ChunkCache(plan.cache_size)),
        DecodeWorkers(workers),
        PrefetchBudget(plan.cache_size // _PREFETCH_SHARE, windows, depth_of(lanes)),
        MountLease(plan.repository),
        Owner(os.geteuid(), os.getegid(), plan.shared),
        ToldOnce(),
    )


async def _know_index(repository: Repository) -> None:
    """Where requests wait for a network, the index comes before somebody waits for it."""
    if repository.sealed.store.lanes > 1:
        # A failure is left for the read that needs it.
        with suppress(RepositoryError):
            await trio.to_thread.run_sync(repository.index.refresh, abandon_on_cancel=True)


def _sessions(plan: MountPlan, home: SessionHome, parts: MountParts) -> LiveSessions:
    ahead_max = plan.cache_size // _AHEAD_SHARE
    return LiveSessions(home, parts.shelf, parts.lease, parts.workers, ahead_max)


def _changed(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0  # somebody moved it away under us


def _load(watch: CatalogWatch) -> None:
    # A million objects that stay: looking for garbage among them takes 0.3 s of the start, and
    # would stop every reader for 50 ms again and again later.
    gc.disable()
    watch.load()
    gc.freeze()
    # A page of a guest's folder is thousands of short-lived tuples, and none of them garbage yet.
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def _mount(operations: MountOperations, plan: MountPlan) -> None:
    try:
        pyfuse3.init(operations, str(plan.mount_point), mount_options(plan))
    except RuntimeError as error:
        raise UsageError(f"cannot mount at {plan.mount_point}: {error}") from error


def mount_options(plan: MountPlan) -> set[str]:
    """As libfuse takes them."""
    # Never max_read=: pyfuse3 does not repeat it in its init, and libfuse then ends the session.
    options = {f"subtype={SUBTYPE}", "nosuid", "nodev"}
    if plan.block_device is None:
        options.add(f"fsname={SUBTYPE}")
    else:
        # blksize: of the page cache's blocks; 512 otherwise, and short reads in pieces of that.
        options |= {"blkdev", f"fsname={plan.block_device}", "blksize=4096"}
    if plan.live is None:
        options.add("ro")
    if plan.shared:
        # Guest files have the guest's modes, and the kernel judges others by them. Who mounts for
        # himself alone holds the keys to all of it: no mode keeps anything from him.
        options |= {"allow_other", "default_permissions"}
    return options


async def _when_it_answers(place: Path, ready: Callable[[], None]) -> None:
    # In a thread: the loop must be free to answer.
    await trio.to_thread.run_sync(os.stat, place)
    mounted = find_mount(place)
    if mounted is not None and not raise_read_ahead(mounted):
        _LOG.info("read-ahead stays at the kernel's default; only root may raise it")
    ready()


async def _end_at(signals: AsyncIterator[int]) -> None:
    async for _ in signals:
        pyfuse3.terminate()
