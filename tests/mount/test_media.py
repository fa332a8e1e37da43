"""Points copied to a folder once, burnt as a disc image, and used from there as from anywhere.

A kernel without iso9660 cannot mount the image, so what is burnt is read from it by the burner and
then mounted read-only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backpoint_repo.errors import RepositoryError, UsageError
from backpoint_repo.format import CONFIG_KEY
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, make_repository, opened
from mounted_repository import run
from small_repository import NOON, back_up, read_disk
from synthetic_disk import SyntheticDisk, random_disk, scribble

MIB = 1 << 20


@dataclass(frozen=True)
class Disc:
    """commands: on the disc image, as it is mounted. folder: what it was burnt from. disks: what
    the points show, the oldest first."""

    commands: CommandLine
    folder: Path
    disks: tuple[bytes, ...]


@pytest.fixture(scope="module")
def disc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disc]:
    """Made by an agent; three points of two VMs."""
    folder = tmp_path_factory.mktemp("disc")
    owner, agent = make_repository(folder, folder / "repo")
    disk, contents = random_disk(70 * MIB + 5, 1, longest=MIB), []
    for day in range(2):
        scribble(disk, random.Random(day), 4, 200_000)
        back_up(opened(owner), "web", disk, time=NOON + 86400 * day)
        contents.append(disk.content(0, disk.size))
    back_up(opened(owner), "db", disk, time=NOON)
    media, image, place = folder / "media", folder / "disc.iso", folder / "cdrom"
    burnt = folder / "burnt"
    agent.run("copy", "--to", media, "--media", "--verify")
    run("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", image, media)
    run("xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", burnt)
    place.mkdir()
    run("mount", "--bind", "-o", "ro", burnt, place)
    try:
        yield Disc(
            CommandLine(folder, {**owner.variables, "BACKPOINT_REPO": str(place)}),
            media,
            tuple(contents),
        )
    finally:
        run("umount", place)


def test_the_folder_has_what_readers_need_and_nothing_else(disc: Disc) -> None:
    """One segment and one catalogue object; no lease, nothing temporary, no policy."""
    folders = {
        path.name: len(list(path.iterdir())) for path in disc.folder.iterdir() if path.is_dir()
    }
    assert folders.keys() == {"packs", "nodes", "index", "points", "slots", "catalog"}
    assert (folders["index"], folders["catalog"], folders["points"]) == (1, 1, 3)
    assert (disc.folder / CONFIG_KEY).exists()


def test_it_is_checked_and_restored_from_the_disc(disc: Disc, tmp_path: Path) -> None:
    disc.commands.run("check", "--read-data")
    assert len(disc.commands.run("points", "web").out.splitlines()) == 3
    for day, at in enumerate(("2023-11-14", "2023-11-15")):
        out = tmp_path / f"{day}.raw"
        said = disc.commands.run("restore", f"web@{at}", "--disk", "0", "-o", out)
        assert out.read_bytes() == disc.disks[day]
        assert "if this point is pruned while it is read" in said.err


def test_it_is_mounted_from_the_disc(disc: Disc, tmp_path: Path) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    disc.commands.run("mount", place)
    try:
        names = sorted(path.name for path in (place / "vms").iterdir())
        assert names == ["db", "web"]
        flat = place / "vms" / "web" / "latest" / "disk0-flat.vmdk"
        assert flat.read_bytes() == disc.disks[1]
    finally:
        disc.commands.run("umount", place)


def test_nothing_can_be_written_to_the_disc(disc: Disc, tmp_path: Path) -> None:
    """Told in a sentence."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(b"x" * MIB)
    said = disc.commands.run("backup", "image", disk, "--vm", "web", code=RepositoryError.exit_code)
    assert "Read-only file system" in said.error


@pytest.fixture
def lines(tmp_path: Path) -> tuple[CommandLine, CommandLine]:
    return make_repository(tmp_path, tmp_path / "repo")


def test_media_with_keys_of_their_own(
    lines: tuple[CommandLine, CommandLine], tmp_path: Path
) -> None:
    """What `init` has made keeps them."""
    (tmp_path / "agents").mkdir()
    owner, _ = lines
    disk = random_disk(3 * MIB, 2)
    point = back_up(opened(owner), "web", disk)
    media = tmp_path / "media"
    theirs, _ = make_repository(tmp_path / "agents", media)
    owner.run("copy", "--to", media, "--media", "--verify")
    assert sorted(path.name for path in media.iterdir()) == [
        "catalog",
        "config",
        "index",
        "nodes",
        "packs",
        "points",
        "slots",
    ]
    theirs.run("check", "--read-data")
    copy = opened(theirs)
    (summary,) = copy.catalog.refresh()
    found = copy.point(summary.point_id)
    assert found.disks[0].root != point.disks[0].root
    assert read_disk(copy, found.disks[0]) == disk.content(0, disk.size)


def test_media_are_written_once(lines: tuple[CommandLine, CommandLine], tmp_path: Path) -> None:
    """What is there already, or no folder, is refused and left alone; a dry run makes nothing."""
    owner, agent = lines
    disk = SyntheticDisk(MIB, name="small")
    disk.write(0, b"x" * 5000)
    back_up(opened(owner), "web", disk)
    media = tmp_path / "media"
    agent.run("copy", "--to", media, "--media", "--dry-run")
    assert not media.exists()
    agent.run("copy", "--to", media, "--media")
    before = sorted((found.key, found.size) for found in LocalStore(media).list(""))
    assert "is not new" in agent.run("copy", "--to", media, "--media", code=2).error
    assert sorted((found.key, found.size) for found in LocalStore(media).list("")) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    said = agent.run("copy", "--to", tmp_path / "full", "--media", code=UsageError.exit_code)
    assert "notes.txt" in said.error
    said = agent.run("copy", "--to", "s3://bucket/x", "--media", code=UsageError.exit_code)
    assert "media are made in a folder" in said.error
