"""`backpoint boot --group`: machines that boot together, in order, in a network of their own."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backpoint_fusefs.boot.group_file import read_group
from backpoint_repo.repository import open_repository
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, Said
from guest_disks import build_bootable
from leftovers import find_leftovers
from small_repository import NOON, PASSPHRASE, assert_clean, back_up, new_repository

# Boot sectors. hlt; jmp to it: stays for ever, and says nothing.
STAYS = b"\xf4\xeb\xfd"
# mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt: ACPI's power off, as QEMU has it.
QUITS = bytes.fromhex("ba0406b80020eff4")
NEVER = 'ready = { text = "never said" }'


@dataclass(frozen=True)
class Site:
    """A repository with points of two guests that know each other, and of ones that do little."""

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
        disk = folder / "disk.raw"
        build_bootable(disk, hostname=name, address=address, peer=peer)
        back_up(repository, name, RawImage(disk), time=NOON)
    for name, code in (("stays", STAYS), ("quits", QUITS)):
        disk.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(1 << 20, b"\0"))
        back_up(repository, name, RawImage(disk), time=NOON)
    disk.write_bytes(bytes(1 << 20))
    back_up(repository, "empty", RawImage(disk), time=NOON)
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


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ('point = "empty"\n' + NEVER, "bad is not ready: the firmware found nothing to boot from"),
        (
            'point = "stays@latest"\naddress = "10.9.0.7"\nready = { port = 80, timeout = 1.5 }',
            "bad is not ready: no sign of life within 1.5 s; nothing is on the console; "
            "nobody answers for 10.9.0.7",
        ),
        (f'point = "quits"\n[[vm]]\nname="late"\npoint="stays"\n{NEVER}', "bad ended by itself"),
    ],
)
def test_a_member_that_is_not_ready_ends_all(site: Site, member: str, said: str) -> None:
    """It is named, with the reason, in the error and in the records."""
    text = f'[[vm]]\npoint = "stays"\n[[vm]]\nname = "bad"\nafter = ["stays"]\n{member}'
    done, records = site.boot(text, "--until-ready", code=8)
    assert said in done.error
    failed, result = records[-2:]
    assert (failed["member"], failed["event"]) == ("bad", "failed")
    assert not result["ok"]
    assert done.error == result["error"]
    site.assert_nothing_left()


def test_a_group_that_takes_too_long(site: Site) -> None:
    """--timeout is for all of it, and names who was late."""
    text = f'[[vm]]\npoint = "stays"\n{NEVER}\n[[vm]]\npoint = "quits"\nafter = ["stays"]'
    done, records = site.boot(text, "--timeout", "1", code=8)
    assert done.error == "not all were ready within 1 s; not yet: stays, quits"
    assert [member["session"] is None for member in records[-1]["members"]] == [False, True]
    site.assert_nothing_left()


def test_it_stays_until_its_guests_have_ended(site: Site) -> None:
    """All are ready once they have started, where nothing else is asked."""
    _, records = site.boot('[[vm]]\npoint = "quits"')
    assert [record["event"] for record in records[:-1]] == ["started", "ready", "ended"]
    assert records[-1]["ended"] == "by the guests"
    site.assert_nothing_left()


def interrupted(site: Site, text: str, when: bytes, *words: str) -> tuple[int, str]:
    """Exit code and last line of a group that is interrupted once it says so."""
    with site.line.start("boot", "--group", site.write(text), *words) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(when in line for line in lines)
        assert qemus_in(site.folder)
        process.send_signal(signal.SIGINT)
        *_, last = lines
    return process.returncode, last.decode().strip()


def test_the_user_ends_it(site: Site) -> None:
    """Once all are ready that is its end; --keep keeps what they wrote."""
    text = '[[vm]]\npoint = "stays"\n[[vm]]\nname = "other"\npoint = "stays"'
    code, last = interrupted(site, text, b"all 2 are ready", "--keep")
    assert (code, last) == (0, "backpoint: ended: by the user")
    listed = site.line.run("--json", "live", "list").out.splitlines()
    names = [json.loads(line)["name"] for line in listed]
    assert len(names) == 2
    for name in names:
        site.line.run("live", "discard", name, "--yes")
    site.assert_nothing_left()


def test_an_interrupt_before_all_are_ready(site: Site) -> None:
    """Is one, and leaves nothing."""
    code, last = interrupted(site, f'[[vm]]\npoint = "stays"\n{NEVER}', b"stays: started")
    assert (code, last) == (130, "backpoint: interrupted")
    site.assert_nothing_left()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--until", "x"), "--until is for one machine"),
        (("--log-dir", "/dev/null/logs"), "consoles cannot be written to"),
        ((), "no points of a VM named 'none'"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, words: tuple[str, ...], said: str) -> None:
    """Before anything is begun."""
    name = "stays" if words else "none"
    done, _ = site.boot(f"[[vm]]\npoint = '{name}'", *words, code=2)
    assert said in done.error
    site.assert_nothing_left()


def test_each_mistake_of_a_file_has_its_line(site: Site) -> None:
    """As an editor's user goes through them."""
    done, _ = site.boot('[[vm]]\npoint = "stays"\nmemory = "1"\nready = {}', code=2)
    lines = done.err.splitlines()
    assert len(lines) == 2
    assert "memory: 1 is too little" in lines[0]
    assert "ready: needs one of" in lines[1]


def test_the_example_is_one(site: Site) -> None:
    """As it is printed, it can be read."""
    members = read_group(site.write(site.line.run("boot", "--group-example").out))
    assert [member.title for member in members] == ["db", "files01", "app01"]
    assert "--until-ready and --log-dir" in site.line.run("boot", "--until-ready", code=2).error
