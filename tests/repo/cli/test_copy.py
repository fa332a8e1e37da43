"""`backpoint copy`: what it says, its exit codes, and that copies are what they should be."""

from __future__ import annotations

import json
import random
import secrets
import signal
from pathlib import Path
from typing import Any

from backpoint_repo.check import check_repository
from backpoint_repo.chunking import ChunkParameters
from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.format import Kind
from backpoint_repo.repository import open_repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.address import open_store
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, Said, opened
from object_server import ObjectServer
from repo.copying.resealed_scene import THERE, assert_all_clean, owned_by_another
from small_repository import (
    NOON,
    PASSPHRASE,
    StandingClock,
    assert_clean,
    back_up,
    keys_of,
    new_repository,
    read_disk,
)

MIB = 1 << 20
CLOCK = StandingClock()


def backed_up(line: CommandLine, disk: Path, vm: str = "web01", at: float = NOON) -> str:
    return back_up(opened(line), vm, RawImage(disk), time=at, label="a label").point_id.hex()


def records(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.out.splitlines()]


def assert_whole(both: CommandLine, there: Path, disk: Path) -> None:
    """All copies show the disk, and both repositories are clean."""
    target = open_repository(LocalStore(there), THERE)
    for summary in target.catalog.refresh():
        copy = target.point(summary.point_id)
        assert read_disk(target, copy.disks[0]) == disk.read_bytes()
    assert_clean(opened(both))
    assert_all_clean(LocalStore(there), THERE, CLOCK)


def test_it_shows_copies_and_shows_what_it_did(both: CommandLine, there: Path, disk: Path) -> None:
    for at in (NOON, NOON + 3600):
        backed_up(both, disk, at=at)
    backed_up(both, disk, "db")
    said = both.run("copy", "--to", there, "--dry-run")
    assert "3 points would be copied, of 9.0 MiB in all" in said.out
    assert not keys_of(LocalStore(there), Kind.POINT)
    said = both.run("copy", "--to", there, "--verify")
    assert [line.split()[-1] for line in said.out.splitlines()[1:4]] == ["copied"] * 3
    assert "3 points copied, 0 there already, read 4.0 MiB, new 2.0 MiB" in said.out
    (record,) = records(both.run("copy", "--to", there, "--json"))
    assert (record["copied"], record["there"], record["read"], record["stored"]) == (0, 3, 0, 0)
    assert_whole(both, there, disk)


def test_copies_say_whose_they_are(both: CommandLine, there: Path, disk: Path) -> None:
    original = backed_up(both, disk)
    copied, total = records(both.run("copy", "--to", there, "--json"))
    identity = {"repository": opened(both).config.repository_id.hex(), "point": original}
    assert (copied["type"], copied["original"], copied["origin"]) == ("copied", original, identity)
    assert (copied["verbatim"], total["copied"], total["failed"]) == (False, 1, 0)
    replica = CommandLine(both.folder, {"BACKPOINT_PASSPHRASE": THERE.text})
    (row,) = replica.run("-r", there, "points", "--json").record["points"]
    assert (row["id"], row["origin"], row["label"]) == (copied["id"], identity, "a label")
    shown = replica.run("-r", there, "show", "web01").out
    assert f"copy of                  {original} in repository {identity['repository']}" in shown
    assert replica.run("-r", there, "show", "web01", "--json").record["origin"] == identity
    (row,) = both.run("points", "--json").record["points"]
    assert row["origin"] is None
    assert_whole(both, there, disk)


def test_vms_and_since(both: CommandLine, there: Path, disk: Path) -> None:
    for vm in ("web01", "web02", "db"):
        for hours in (0, 1):
            backed_up(both, disk, vm, NOON + 3600 * hours)
    assert "'mail*'" in both.run("copy", "--to", there, "mail*", code=2).error
    both.run("copy", "--to", there, "web*", "--since", str(NOON + 1))
    (record,) = records(both.run("copy", "--to", there, "--dry-run", "--json"))
    left = [(point["vm"], point["time"] - NOON) for point in record["points"]]
    assert sorted(left) == [("db", 0), ("db", 3600), ("web01", 0), ("web02", 0)]
    assert_whole(both, there, disk)


def test_places_and_keys(
    both: CommandLine, agent: CommandLine, there: Path, disk: Path, tmp_path: Path
) -> None:
    """Nothing to copy to, nothing to copy from, and who may."""
    nowhere = tmp_path / "nowhere"
    said = both.run("copy", "--to", nowhere, code=4).error
    assert said.endswith(f"make one with `backpoint -r {nowhere} init`")
    same = both.having(BACKPOINT_PASSPHRASE=both.variables["BACKPOINT_PASSPHRASE"])
    link = same.repo.with_name("link")
    link.symlink_to(same.repo)
    assert "is the repository to be copied" in same.run("copy", "--to", link, code=2).error
    # Which of the two it does not open, and how to give the other.
    wrong = same.run("copy", "--to", there, code=5).error
    assert wrong.startswith(f"{there}: wrong passphrase")
    assert "BACKPOINT_TO_PASSPHRASE" in wrong
    backed_up(both, disk)
    own = agent.variables["BACKPOINT_CREDENTIAL"]
    poor = agent.having(BACKPOINT_CREDENTIAL=own, BACKPOINT_TO_PASSPHRASE=THERE.text)
    assert "needs the source owner's passphrase" in poor.run("copy", "--to", there, code=5).error
    target = open_repository(LocalStore(there), THERE)
    credential = tmp_path / "there.credential"
    write_credential(AgentCredential.of(target.config, target.sealed.keyring.secret), credential)
    passphrase = both.variables["BACKPOINT_PASSPHRASE"]
    enough = both.having(BACKPOINT_PASSPHRASE=passphrase, BACKPOINT_TO_CREDENTIAL=credential)
    assert "to verify" in enough.run("copy", "--to", there, "--verify", code=5).error
    enough.run("copy", "--to", there)
    assert_whole(both, there, disk)


def test_damage_is_told_and_the_rest_is_copied(both: CommandLine, there: Path, disk: Path) -> None:
    backed_up(both, disk, "db")
    (pack,) = keys_of(opened(both).sealed.store, Kind.DATA_PACK)
    content = random.Random(3).randbytes(MIB)
    (both.folder / "other.raw").write_bytes(content)
    backed_up(both, both.folder / "other.raw")
    whole = (both.repo / pack).read_bytes()
    (both.repo / pack).chmod(0o600)
    (both.repo / pack).write_bytes(whole[: 1 << 19])
    said = both.run("copy", "--to", there, "--json", code=1)
    lost, copied, total = records(said)
    assert (lost["type"], lost["vm"], lost["fate"]) == ("not copied", "db", "cannot be read")
    assert lost["why"][0].startswith("disk0: bytes ")
    assert (copied["type"], total["copied"], total["failed"]) == ("copied", 1, 1)
    (both.repo / pack).write_bytes(whole)
    assert "1 point copied, 1 there already" in both.run("copy", "--to", there).out
    assert_clean(opened(both))
    assert_all_clean(LocalStore(there), THERE, CLOCK)


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """There is no point, and what was stored until then is found again."""
    disk, there = tmp_path / "large.raw", tmp_path / "large"
    disk.write_bytes(random.Random(5).randbytes(72 * MIB))
    large = ChunkParameters.with_average(1 << 18)
    new_repository(LocalStore(tmp_path / "repo"), CLOCK, large)
    owned_by_another(LocalStore(there), CLOCK, large)
    repo = CommandLine(tmp_path, {"BACKPOINT_REPO": str(tmp_path / "repo")})
    both = repo.having(BACKPOINT_PASSPHRASE=PASSPHRASE.text, BACKPOINT_TO_PASSPHRASE=THERE.text)
    backed_up(both, disk)
    with both.start("copy", "--to", there) as process:
        while not keys_of(LocalStore(there), Kind.DATA_PACK):
            assert process.poll() is None, "it was done before its first pack was seen"
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not keys_of(LocalStore(there), Kind.POINT)
    copied, _ = records(both.run("copy", "--to", there, "--json"))
    assert copied["new"] <= (72 - 31) * MIB
    target = open_repository(LocalStore(there), THERE)
    (summary,) = target.catalog.refresh()
    assert read_disk(target, target.point(summary.point_id).disks[0]) == disk.read_bytes()
    assert check_repository(target).clean
    assert check_repository(opened(both)).clean


def test_to_an_object_store(both: CommandLine, server: ObjectServer, disk: Path) -> None:
    """And on from there to a third place, which says whose copy it is all the same."""
    address = f"s3://tests/{secrets.token_hex(8)}"
    store = open_store(address, server.environment())
    owned_by_another(store, CLOCK)
    original = backed_up(both, disk)
    aware = CommandLine(both.folder, {**both.variables, **server.environment()})
    assert "1 point copied" in aware.run("copy", "--to", address, "--verify").out
    third = both.folder / "third"
    owned_by_another(LocalStore(third), CLOCK)
    variables = {"BACKPOINT_REPO": address, "BACKPOINT_PASSPHRASE": THERE.text}
    reached = CommandLine(both.folder, {**variables, **server.environment()})
    copied, _ = records(reached.run("copy", "--to", third, "--json"))
    assert copied["origin"]["point"] == original
    assert_whole(both, third, disk)
    assert_all_clean(store, THERE, CLOCK)
