"""`backpoint prove`, as a user types it: what is tried and said, what is kept and who sees it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backpoint_fusefs.prove.proving import PointGone, ProveTools, keep_proof, prove_point
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.format import Kind
from backpoint_repo.point_proof import newest_proofs
from backpoint_repo.point_structure import StructureProof
from backpoint_repo.proof import Level
from backpoint_repo.source.raw_image import RawImage
from command_line import CommandLine
from guest_disks import build_bootable
from leftovers import find_leftovers
from mounted_repository import MakePoint, MountedRepository
from small_repository import NOON, PASSPHRASE, back_up, keys_of
from synthetic_disk import random_disk

# A boot sector that stays for ever and says nothing: hlt; jmp to it.
STAYS = (b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders of its own for sessions and temporary files: empty at the end, as is all else."""
    for name, variable in (("live", "BACKPOINT_LIVE"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    yield
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not any(path.is_dir() for path in (tmp_path / "live").iterdir())
    assert qemus_in(tmp_path) == []
    assert not find_leftovers(within=tmp_path / "tmp")


def qemus_in(folder: Path) -> list[str]:
    """Machines whose disks are below it, by their process ids."""
    pattern = f"qemu-system.*{folder}/"
    done = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True)
    return done.stdout.split()


@pytest.fixture(scope="module")
def guests(
    shared_repository: MountedRepository, tmp_path_factory: pytest.TempPathFactory
) -> MountedRepository:
    """One that boots, and one that holds nothing to boot from."""
    disk = tmp_path_factory.mktemp("guests") / "disk.raw"
    build_bootable(disk, hostname="web", address="10.77.0.9/24")
    back_up(shared_repository.repository, "web", RawImage(disk), time=NOON)
    back_up(shared_repository.repository, "bare", random_disk(1 << 20, 1), time=NOON)
    return shared_repository


def prove(repository: MountedRepository, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """What it says with --json."""
    done = repository.backpoint("prove", *words, "--json")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def proved_vms(records: list[dict[str, Any]]) -> list[str]:
    return [record["vm"] for record in records]


def proofs_of(repository: MountedRepository) -> int:
    return len(newest_proofs(repository.fresh().sealed))


def told(path: Path) -> dict[str, str]:
    """Attributes of the proof, by their short names."""
    start = "user.backpoint."
    return {
        name.removeprefix(start): os.getxattr(path, name).decode()
        for name in os.listxattr(path)
        if name.startswith(start + "proof")
    }


def test_a_boot_is_proved_and_told_everywhere(guests: MountedRepository) -> None:
    """With its sign, its time, its picture, and what it read; in the list, the point, the mount."""
    (record,) = prove(guests, "web", "--level", "boot", "--sign-text", "BOOT-OK", "--memory=160M")
    assert (record["ok"], record["proved_level"], record["stored"]) == (True, "boot", True)
    assert [step["level"] for step in record["steps"]] == ["structure", "data", "trees", "boot"]
    assert record["sign"].startswith("console: BOOT-OK vm=web boots=1")
    assert 0 < record["sign_s"] < record["duration_s"]
    assert record["screenshot_size"] > 0
    assert record["trace_ranges"] > 0

    (listed,) = json.loads(guests.backpoint("points", "web", "--json").stdout)["points"]
    assert listed["proof"]["id"] == record["id"]
    assert " boot 20" in guests.backpoint("points", "web").stdout
    shown = guests.backpoint("show", "web@latest").stdout
    assert "BOOT-OK vm=web" in shown
    guests.mount()
    try:
        point = guests.newest("web")
        kept = json.loads((point / "proof.json").read_bytes())
        assert (kept["ok"], kept["sign"]) == (True, record["sign"])
        assert (point / "screen.png").read_bytes().startswith(PNG)
        assert told(point)["proof"].startswith("boot ok")
        assert told(point)["proof_level"] == "boot"
    finally:
        guests.umount()


def test_a_guest_that_does_not_boot(guests: MountedRepository) -> None:
    """Its failure is as visible as a good proof, and there is a picture of it."""
    (record,) = prove(guests, "bare", "--level", "boot", "--memory=128M", code=1)
    assert (record["ok"], record["proved_level"]) == (False, "trees")
    assert record["failed_level"] == "boot"
    assert "the firmware found nothing to boot from" in record["steps"][-1]["detail"]
    assert (record["sign"], record["trace_ranges"]) == ("", 0)
    assert "FAILED boot" in guests.backpoint("points", "bare").stdout
    guests.mount()
    try:
        point = guests.newest("bare")
        assert json.loads((point / "proof.json").read_bytes())["failed_level"] == "boot"
        assert (point / "screen.png").read_bytes().startswith(PNG)
        assert told(point)["proof"].startswith("boot FAILED")
        assert told(point)["proof_failed"] == "boot"
    finally:
        guests.umount()


def test_a_port_is_a_sign(guests: MountedRepository) -> None:
    """Of a guest that nobody else reaches; for people a line each, and where it is meanwhile."""
    words = ("--sign-port", "80", "--sign-address", "10.77.0.9", "--memory", "160M")
    done = guests.backpoint("prove", "web@latest", "--level", "boot", *words)
    assert done.returncode == 0, done.stderr
    verdict, *steps = [line for line in done.stdout.splitlines() if "note:" not in line]
    assert "boot ok" in verdict
    assert [line.split()[:2] for line in steps] == [
        ["structure", "ok"],
        ["data", "ok"],
        ["trees", "ok"],
        ["boot", "ok"],
    ]
    assert "port 80: " in steps[-1]
    levels = [level.value for level in Level]
    said = [line.rpartition(": ")[2] for line in done.stderr.splitlines()]
    assert [word for word in said if word in levels] == levels


def test_a_drill_takes_those_proved_longest_ago(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """One point of each VM, its newest; who was left out is next."""
    for number in range(2):
        for vm in ("a", "b", "c"):
            back_up_bytes(vm, bytes([number + 1]) * 5000)
    assert sorted(proved_vms(prove(checked_repository, "-n"))) == ["a", "b", "c"]
    assert proofs_of(checked_repository) == 0
    first = proved_vms(prove(checked_repository, "--random", "2", "--level", "structure"))
    assert len(set(first)) == 2
    (rest,) = {"a", "b", "c"} - set(first)
    after = [
        proved_vms(prove(checked_repository, "--random", "1", "--level", "structure"))
        for _ in range(2)
    ]
    assert after == [[rest], [first[0]]]
    newest = {point.vm: point.point_id for point in checked_repository.fresh().catalog.refresh()}
    assert set(newest_proofs(checked_repository.fresh().sealed)) == set(newest.values())


def test_one_failure_does_not_end_a_drill(
    unchecked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """It is told, the others are tried, and the exit code says it."""
    store = unchecked_repository.repository.sealed.store
    packs = []
    for number, vm in enumerate("abc"):
        back_up_bytes(vm, random.Random(number).randbytes(100_000))
        packs += [key for key in keys_of(store, Kind.DATA_PACK) if key not in packs]
    store.delete(packs[1])
    records = prove(unchecked_repository, "--level", "structure", code=1)
    assert {record["vm"]: record["ok"] for record in records} == {"a": True, "b": False, "c": True}
    assert "FAILED structure" in unchecked_repository.backpoint("points", "b").stdout


def test_the_agent_proves_structure_only(
    checked_repository: MountedRepository,
    back_up_bytes: MakePoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All else reads what disks hold."""
    back_up_bytes("web", b"x" * 5000)
    fresh, credential = checked_repository.fresh(), tmp_path / "agent"
    write_credential(AgentCredential.of(fresh.config, fresh.sealed.keyring.secret), credential)
    monkeypatch.setenv("BACKPOINT_CREDENTIAL", str(credential))
    done = checked_repository.backpoint("prove", "web", "--level", "structure", passphrase=None)
    assert done.returncode == 0, done.stderr
    refused = checked_repository.backpoint("prove", "web", "--level", "data", passphrase=None)
    assert (refused.returncode, refused.stderr.count("\n"), refused.stdout) == (5, 1, "")
    assert proofs_of(checked_repository) == 1


def test_a_store_that_cannot_be_written(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """What was found out is said all the same, and that it is not kept."""
    back_up_bytes("web", b"x" * 5000)
    root = checked_repository.root
    subprocess.run(["mount", "--bind", root, root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        done = checked_repository.backpoint("prove", "web")
    finally:
        subprocess.run(["umount", root], check=True)
    assert done.returncode == 4
    assert "trees ok" in done.stdout
    assert "the proof could not be stored" in done.stderr.splitlines()[-1]
    assert proofs_of(checked_repository) == 0


def test_a_boot_that_cannot_be_tried_is_no_failure(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> None:
    """More memory than there is: said, and what was proved before it is kept."""
    back_up_bytes("web", STAYS)
    (record,) = prove(checked_repository, "web", "--level", "boot", "--memory=900T", code=8)
    assert (record["ok"], record["level"], record["stored"]) == (True, "trees", True)
    assert " trees 20" in checked_repository.backpoint("points").stdout


def test_an_interrupt_ends_a_boot(
    checked_repository: MountedRepository, back_up_bytes: MakePoint, tmp_path: Path
) -> None:
    """No machine, no session, no mount, no verdict."""
    back_up_bytes("web", STAYS)
    line = CommandLine(tmp_path, {"BACKPOINT_REPO": str(checked_repository.root)}).having(
        BACKPOINT_PASSPHRASE=PASSPHRASE.text, BACKPOINT_LIVE=tmp_path / "live"
    )
    with line.start("prove", "web", "--level", "boot", "--sign-text", "never") as process:
        deadline = time.monotonic() + 60
        while not qemus_in(tmp_path):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert (process.returncode, said.splitlines()[-1]) == (130, b"backpoint: interrupted")
    assert proofs_of(checked_repository) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "no points of a VM named 'nobody'"),
        (["web", "--random", "3"], "give no VM with it"),
        (["web", "--sign-text", "x"], "--sign-text is for --level boot"),
        (["web", "--level", "boot", "--sign-text", "("], "is no regular expression"),
        (["web", "--level", "boot", "--sign-address", "10.0.0.1"], "give both"),
    ],
)
def test_what_makes_no_sense_is_refused(
    checked_repository: MountedRepository, back_up_bytes: MakePoint, words: list[str], said: str
) -> None:
    """Before anything is read, in one line."""
    back_up_bytes("web", b"x" * 5000)
    done = checked_repository.backpoint("prove", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert proofs_of(checked_repository) == 0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_point_that_is_removed_meanwhile(
    checked_repository: MountedRepository, back_up_bytes: MakePoint, when: str
) -> None:
    """Has no proof, good or bad: nothing is stored of it."""
    back_up_bytes("web", b"x" * 5000)
    repository = checked_repository.fresh()
    (chosen,) = repository.catalog.refresh()

    def remove(_: object) -> None:
        for key in keys_of(repository.sealed.store, Kind.POINT):
            repository.sealed.store.delete(key)

    tools = ProveTools(repository, StructureProof(repository), 1, random.Random(1), lambda _: None)
    if when == "before":
        remove(None)
    with pytest.raises(PointGone, match="removed meanwhile"):
        keep_proof(repository, prove_point(tools, chosen, Level.STRUCTURE, remove))
    assert proofs_of(checked_repository) == 0
