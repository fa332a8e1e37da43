"""What a second process does in these tests: one backup, one init. Forked from a clean server."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from backpoint_repo.repository import create_repository, open_repository
from backpoint_repo.store.local import LocalStore
from faults.failing_store import deadly_store
from small_repository import CHEAP, PASSPHRASE, SMALL_CHUNKS, back_up
from synthetic_disk import SyntheticDisk

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["faults.other_process"])


def start(work: Callable[..., None], *args: object) -> BaseProcess:
    """Begin to run module-level `work` in a process of its own."""
    process = _CONTEXT.Process(target=work, args=args)
    process.start()
    return process


def exit_code(process: BaseProcess) -> int:
    """Wait for it; -9 where it was killed. Fails where it takes over a minute."""
    process.join(60)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def disk_of(seed: int, size: int = 600 << 10) -> SyntheticDisk:
    """The same disk in every process."""
    disk = SyntheticDisk(size, name=f"disk {seed}")
    disk.write(0, random.Random(seed).randbytes(size // 2))
    return disk


def back_up_dying(root: Path, seed: int, at: int, moment: str) -> None:
    """A backup of `web` that is killed in its n-th changing store call."""
    store = deadly_store(root, at, moment)
    back_up(open_repository(store, PASSPHRASE), "web", disk_of(seed))


def init_dying(root: Path, at: int, moment: str) -> None:
    """An init that is killed likewise."""
    create_repository(deadly_store(root, at, moment), PASSPHRASE, SMALL_CHUNKS, cost=CHEAP)


def back_up_often(root: Path, vm: str, seeds: list[int]) -> None:
    """Several backups of one VM, one after another."""
    for seed in seeds:
        back_up(open_repository(LocalStore(root), PASSPHRASE), vm, disk_of(seed))
