"""`backpoint heal`: exit codes, what it says, and what --from takes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from backpoint_repo.format import Kind
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.address import open_store
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, make_repository, opened
from object_server import ObjectServer
from small_repository import assert_clean, back_up, keys_of


@pytest.fixture
def damaged(owner: CommandLine, disk: Path) -> CommandLine:
    """The owner's line; one point of web01, whose data pack is gone."""
    back_up(opened(owner), "web01", RawImage(disk))
    shutil.copytree(owner.repo, owner.folder / "copy")
    for key in keys_of(opened(owner).sealed.store, Kind.DATA_PACK):
        (owner.repo / key).unlink()
    return owner


def test_nothing_to_heal(owner: CommandLine, disk: Path) -> None:
    back_up(opened(owner), "web01", RawImage(disk))
    said = owner.run("heal", "--from", disk)
    assert "1 point examined, nothing wanted, 0 B stored: nothing to heal" in said.out
    assert_clean(opened(owner))


def test_what_is_lost_is_listed_and_a_live_disk_heals_it(damaged: CommandLine, disk: Path) -> None:
    said = damaged.run("heal", "--dry-run", "--from", disk, code=1).out
    assert "hurt: web01@" in said
    assert "disk0, bytes 0 to 1048576: its pack is missing or cut short" in said
    assert f"parity packs, then from {disk}" in said
    assert "a full backup of web01" in damaged.run("heal", code=1).out
    said = damaged.run("heal", "--from", disk, "--vm", "web01", "--quick").out
    assert f"chunks from {disk}" in said
    assert ": healed" in said
    assert_clean(opened(damaged))


def test_as_json(damaged: CommandLine, disk: Path) -> None:
    said = damaged.run("heal", "--json", code=1)
    assert said.record["chunks"] > 0
    assert {lost["vm"] for lost in said.record["lost"]} == {"web01"}
    assert all(json.loads(line)["type"] == "progress" for line in said.err.splitlines())
    record = damaged.run("heal", "--json", "--from", disk).record
    assert record["whole"] is True
    assert record["healed"][-1] == {"way": f"from {disk}", "chunks": record["chunks"], "nodes": 0}
    assert_clean(opened(damaged))


def test_the_agent_heals_from_an_image_of_another_format(
    damaged: CommandLine, agent: CommandLine, disk: Path
) -> None:
    image = disk.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, image], check=True)
    assert ": healed" in agent.run("heal", "--from", image).out
    assert_clean(opened(damaged))


def test_a_byte_copy_needs_no_credential_of_its_own(damaged: CommandLine) -> None:
    said = damaged.run("heal", "--from", damaged.folder / "copy").out
    assert f"from {damaged.folder / 'copy'}" in said
    assert_clean(opened(damaged))


def test_a_byte_copy_in_a_bucket(damaged: CommandLine, server: ObjectServer) -> None:
    address = "s3://tests/byte-copy"
    bucket = open_store(address, server.environment())
    copy = LocalStore(damaged.folder / "copy")
    for found in copy.list(""):
        bucket.put(found.key, [copy.get(found.key)])
    line = damaged.having(**damaged.variables, **server.environment())
    assert f"from {address}" in line.run("heal", "--from", address).out
    assert_clean(opened(damaged))


def test_a_repository_with_other_keys_needs_its_passphrase(
    damaged: CommandLine, disk: Path, tmp_path: Path
) -> None:
    other, other_agent = make_repository(tmp_path / "second", tmp_path / "second" / "repo")
    back_up(opened(other), "web01", RawImage(disk))
    place = other.repo
    assert "no passphrase of" in damaged.run("heal", "--from", place, code=5).error
    credential = other_agent.variables["BACKPOINT_CREDENTIAL"]
    agent = damaged.having(**damaged.variables, BACKPOINT_FROM_CREDENTIAL=credential)
    assert "needs its owner's passphrase" in agent.run("heal", "--from", place, code=5).error
    secret = other.variables["BACKPOINT_PASSPHRASE"]
    right = damaged.having(**damaged.variables, BACKPOINT_FROM_PASSPHRASE=secret)
    assert f"from the points in {place}" in right.run("heal", "--from", place).out
    assert_clean(opened(damaged))


def test_wrong_use(damaged: CommandLine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no repository" in damaged.run("heal", "--from", empty, code=2).error
    said = damaged.run("heal", "--from", damaged.repo, code=2).error
    assert "is the repository that is to be healed" in said
    assert "cannot open" in damaged.run("heal", "--from", tmp_path / "none", code=3).error
    assert "there are: web01" in damaged.run("heal", "--vm", "web", code=2).error


def test_what_cannot_be_looked_at_is_told(damaged: CommandLine, disk: Path) -> None:
    """A folder where a map's pack should be: what the map says is neither good nor lost."""
    (key,) = keys_of(opened(damaged).sealed.store, Kind.NODE_PACK)
    pack, aside = damaged.repo / key, damaged.folder / "aside"
    pack.rename(aside)
    pack.mkdir()
    said = damaged.run("heal", "--from", disk, code=4).out
    assert "could not look at: cannot read" in said
    assert "COULD NOT LOOK AT EVERYTHING" in said
    pack.rmdir()
    aside.rename(pack)
    damaged.run("heal", "--from", disk)
    assert_clean(opened(damaged))
