"""A hundred writers at once on one bucket, with data of their own and data that others have too.

All of them are between their first and their last step at the same moment, so whoever had to wait
for another would wait for ever.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Final

from backpoint_repo.backup_session import DiskJob
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.format import Kind
from backpoint_repo.lease_book import read_leases
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.address import open_store
from command_line import CommandLine
from object_server import ObjectServer
from small_repository import (
    PASSPHRASE,
    StandingClock,
    assert_clean,
    keys_of,
    new_repository,
    read_disk,
)
from synthetic_disk import SyntheticDisk, random_disk

KIB: Final = 1 << 10
WRITERS: Final = 100
EQUAL: Final = 5
"""Different disks among those that several writers have at once."""
COMMANDS: Final = 3
PATIENCE_S: Final = 120.0


def disk_of(writer: int) -> SyntheticDisk:
    """Every second writer has a disk that nine others have, too; each disk begins with the same."""
    seed = writer // 2 % EQUAL if writer % 2 else 1000 + writer
    disk = random_disk(32 * KIB, seed)
    disk.write(0, b"the same in all" * 273)
    return disk


def test_nobody_waits_and_nothing_is_lost(server: ObjectServer, tmp_path: Path) -> None:
    address, environment = f"s3://tests/{secrets.token_hex(8)}", server.environment()
    clock = StandingClock()
    owner = new_repository(open_store(address, environment), clock)
    credential = AgentCredential.of(owner.config, owner.sealed.keyring.secret)
    together = Barrier(WRITERS, timeout=PATIENCE_S)

    def write(number: int) -> None:
        store = open_store(address, environment)
        _back_up(open_repository(store, credential, clock), number, together.wait)

    write_credential(credential, tmp_path / "agent.credential")
    line = CommandLine(
        tmp_path,
        {
            "BACKPOINT_REPO": address,
            "BACKPOINT_CREDENTIAL": str(tmp_path / "agent.credential"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            **environment,
        },
    )
    (tmp_path / "disk.raw").write_bytes(disk_of(1).content(0, 32 * KIB))
    words = ("backup", "image", "--vm", "command", tmp_path / "disk.raw")
    commands = [line.start(*words) for _ in range(COMMANDS)]
    with ThreadPoolExecutor(WRITERS) as threads:
        assert len(list(threads.map(write, range(WRITERS)))) == WRITERS
    for command in commands:
        said = command.communicate(timeout=PATIENCE_S)
        assert (command.returncode, said[1]) == (0, b""), said
    _verify(open_repository(open_store(address, environment), PASSPHRASE, clock))


def _back_up(repository: Repository, number: int, all_here: Callable[[], int]) -> None:
    with repository.begin_backup(f"vm{number:03}") as session:
        all_here()
        session.store_disk(DiskJob("disk0", disk_of(number)), lambda _: None)
        all_here()
        session.publish(time=None, label="")
        assert session.warnings == []


def _verify(owner: Repository) -> None:
    points = {point.vm: owner.point(point.point_id) for point in owner.catalog.refresh()}
    assert len(points) == WRITERS + 1
    assert len(keys_of(owner.sealed.store, Kind.POINT)) == WRITERS + COMMANDS
    for number in range(WRITERS):
        content = disk_of(number).content(0, 32 * KIB)
        assert read_disk(owner, points[f"vm{number:03}"].disks[0]) == content, number
    assert read_disk(owner, points["command"].disks[0]) == disk_of(1).content(0, 32 * KIB)
    assert read_leases(owner.sealed) == []
    assert_clean(owner)
