"""`backpoint boot --group`: machines that boot together, in order, in a network of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backpoint_fusefs.boot.group_file import read_group
from backpoint_repo.repository import open_repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from command_line import COMMAND, CommandLine, Said
from guest_disks import build_bootable
from leftovers import find_leftovers
from small_repository import NOON, PASSPHRASE, assert_clean, back_up, new_repository


@dataclass(frozen=True)
class Site:
    """A repository with points of two guests that know each other, and of an empty disk."""

    folder: Path
    line: CommandLine

    @property
    def live(self) -> Path:
        return self.folder / "live"

    def write(self, text: str) -> Path:
        path = self.folder / "group.toml"
        path.write_text(text)
        return path

    def boot(self, text: str, *words: str | Path, code: int = 0) -> tuple[Said, list[Any]]:
        """What `boot --group --json` says."""
        said = self.line.run("--json", "boot", "--group", self.write(text), *words, code=code)
        return said, [json.loads(line) for line in said.out.splitlines()]

    def assert_nothing_left(self) -> None:
        """No session, no hold on a point, no mount, no QEMU, no folder."""
        assert not any(path.is_dir() for path in self.live.iterdir())
        assert list((self.folder / "tmp").iterdir()) == []
        assert not find_leftovers(within=self.folder)
        assert qemus_in(self.folder) == []


def qemus_in(folder: Path) -> list[str]:
    """Command lines of machines whose disks are below it."""
    found = subprocess.run(
        ["pgrep", "-a", "-f", f"qemu-system.*{folder}/"], capture_output=True, text=True
    )
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("group")
    (folder / "tmp").mkdir()
    repository = new_repository(LocalStore(folder / "repo"))
    for name, address, peer in (("g1", "10.9.0.1/24", "10.9.0.2"), ("g2", "10.9.0.2/24", "")):
        disk = folder / f"{name}.raw"
        build_bootable(disk, hostname=name, address=address, peer=peer)
        back_up(repository, name, RawImage(disk), time=NOON)
        disk.unlink()
    empty = folder / "empty.raw"
    empty.write_bytes(bytes(1 << 20))
    back_up(repository, "empty", RawImage(empty), time=NOON)
    line = CommandLine(folder, {"BACKPOINT_REPO": str(folder / "repo")}).having(
        BACKPOINT_PASSPHRASE=PASSPHRASE.text, BACKPOINT_LIVE=folder / "live"
    )
    # TMPDIR: what a boot makes there is seen.
    line = CommandLine(folder, {**line.variables, "TMPDIR": str(folder / "tmp")})
    yield Site(folder, line)
    assert_clean(open_repository(LocalStore(folder / "repo"), PASSPHRASE))


def test_members_come_up_in_order_and_reach_each_other(site: Site) -> None:
    """The second starts once the first one's port is open, and finds it in their network."""
    logs = site.folder / "logs"
    _, records = site.boot(
        """
        [[vm]]
        point = "g1@latest"
        memory = "160M"
        after = ["server"]
        wait = 0.5
        ready = { text = "PEER-OK .*", timeout = 120 }
        [[vm]]
        point = "g2@latest"
        name = "server"
        memory = "160M"
        address = "10.9.0.2"
        ready = { port = 80, timeout = 120 }
        """,
        "--until-ready",
        "--log-dir",
        logs,
    )
    *events, result = records
    assert [(event["member"], event["event"]) for event in events] == [
        ("server", "started"),
        ("server", "ready"),
        ("g1", "started"),
        ("g1", "ready"),
    ]
    assert events[2]["seconds"] >= events[1]["seconds"] + 0.5
    assert events[1]["sign"]["detail"] == "port 80: it accepts connections"
    assert events[3]["sign"]["detail"] == "PEER-OK g2"
    assert result["ok"]
    assert [member["member"] for member in result["members"]] == ["server", "g1"]
    assert all(0 < member["ready_s"] < 120 for member in result["members"])
    assert b"BOOT-OK vm=g1" in (logs / "g1.log").read_bytes()
    assert b"BOOT-OK vm=g2" in (logs / "server.log").read_bytes()
    assert (logs / "g1.log").stat().st_mode & 0o777 == 0o600
    site.assert_nothing_left()
