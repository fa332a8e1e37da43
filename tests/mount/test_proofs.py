"""proof.json, screen.png and their attributes: there when there is a proof, as soon as it is made,
and a failed one as visible as a good one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpoint_fusefs.point_folder import PointFolder
from backpoint_repo.catalog import PointSummary
from backpoint_repo.point import ConfigFile, Point
from backpoint_repo.point_note import PointNote, put_note
from backpoint_repo.point_proof import put_proof
from backpoint_repo.proof import LEVELS, Proof, Step
from mounted_repository import MakePoint, MountedRepository
from small_repository import NOON

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def proof_of(point: PointSummary, at: float, *good: bool) -> Proof:
    steps = tuple(Step(level, ok, 1.0, "seen") for level, ok in zip(LEVELS, good, strict=False))
    return Proof(point.point_id, NOON + at, steps, "backpoint 9", "prover", 5.0, "login:", 4.0)


def until(holds: Callable[[], bool]) -> None:
    """Within seconds; fails the test otherwise."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def told(path: Path) -> dict[str, str]:
    """Attributes of the proof, by their short names."""
    names = [name for name in os.listxattr(path) if name.startswith("user.backpoint.proof")]
    return {
        name.removeprefix("user.backpoint."): os.getxattr(path, name).decode() for name in names
    }


def test_proofs_come_while_the_mount_is_there(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """Files, listing, attributes and content change within seconds; nothing else does."""
    for vm in ("web", "db"):
        back_up_bytes(vm, os.urandom(1 << 16))
    repository = checked_repository.repository
    db, web = repository.catalog.refresh()
    checked_repository.mount()
    point, other = checked_repository.newest("web"), checked_repository.newest("db")
    before = set(os.listdir(point))
    assert before == set(os.listdir(other))
    assert not before & {"proof.json", "screen.png"}
    assert not (point / "proof.json").exists()
    assert told(point) == {}
    shape = point.stat()

    put_proof(repository.sealed, proof_of(web, 60, True, True, True, True), PNG)
    until((point / "proof.json").exists)
    assert set(os.listdir(point)) == before | {"proof.json", "screen.png"}
    record = json.loads((point / "proof.json").read_bytes())
    assert (record["ok"], record["proved_level"], len(record["history"])) == (True, "boot", 1)
    assert (point / "screen.png").read_bytes() == PNG
    assert (point / "screen.png").stat().st_size == len(PNG)
    assert told(point)["proof"] == "boot ok 2023-11-14T22-14-20Z"
    assert told(point / "disk0-flat.vmdk")["proof_level"] == "boot"
    assert told(point / "point.json") == {}
    until(lambda: point.stat().st_ctime_ns > shape.st_ctime_ns)
    assert (point.stat().st_mtime_ns, point.stat().st_ino) == (shape.st_mtime_ns, shape.st_ino)

    put_proof(repository.sealed, proof_of(web, 120, True, False))
    until(lambda: not json.loads((point / "proof.json").read_bytes())["ok"])
    record = json.loads((point / "proof.json").read_bytes())
    assert (record["failed_level"], record["proved_level"]) == ("data", "structure")
    assert [proof["ok"] for proof in record["history"]] == [False, True]
    assert told(point) == {
        "proof": "data FAILED 2023-11-14T22-15-20Z",
        "proof_failed": "data",
        "proof_level": "structure",
        "proof_time": "2023-11-14T22-15-20Z",
        "proof_tool": "backpoint 9",
    }
    # The newest that has one.
    assert (point / "screen.png").read_bytes() == PNG

    put_proof(repository.sealed, proof_of(web, 180, True), PNG[:2000])
    until(lambda: (point / "screen.png").read_bytes() == PNG[:2000])
    assert set(os.listdir(other)) == before
    assert db.point_id != web.point_id


def test_a_proof_that_cannot_be_read_is_told(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """Not hidden behind an older one, and in nobody's way."""
    back_up_bytes("web", os.urandom(1 << 16))
    repository = unchecked_repository.repository
    [web] = repository.catalog.refresh()
    put_proof(repository.sealed, proof_of(web, 60, True))
    at = NOON + 120
    put_note(
        repository.sealed, PointNote(web.point_id, f"proof{int(at * 1000):012x}{0:012x}", at, {})
    )
    unchecked_repository.mount()
    point = unchecked_repository.newest("web")
    record = json.loads((point / "proof.json").read_bytes())
    assert not record["ok"]
    assert "unreadable" in record
    assert [proof["ok"] for proof in record["history"]] == [False, True]
    assert told(point)["proof"] == "unreadable 2023-11-14T22-15-20Z"
    assert not (point / "screen.png").exists()
    assert len((point / "disk0-flat.vmdk").read_bytes()) == 1 << 16
    assert "a proof cannot be read" in unchecked_repository.log()


def test_a_lost_screenshot_is_an_error(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """Not an empty file."""
    back_up_bytes("web", os.urandom(1 << 16))
    repository = unchecked_repository.repository
    [web] = repository.catalog.refresh()
    proof = put_proof(repository.sealed, proof_of(web, 60, True), PNG)
    repository.sealed.store.delete(f"notes/{web.point_id.hex()}-shot{proof.proof_id}")
    unchecked_repository.mount()
    with pytest.raises(OSError, match="nput/output"):
        (unchecked_repository.newest("web") / "screen.png").read_bytes()


def test_a_vms_own_file_gives_way() -> None:
    """A proof may come at any time, and its names are kept free for it."""
    files = tuple(ConfigFile(name, 0, ()) for name in ("proof.json", "web.vmx"))
    folder = PointFolder(Point(bytes(16), "web", NOON, NOON, "", (), files))
    names = {entry.name for entry in folder.entries()}
    assert b"web.vmx" in names
    assert b"proof.json" not in names
    assert len(names) == len(files) + 2
