"""`backpoint live`, as a user types it: sessions from their beginning to their end."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backpoint_fusefs.live.session import Session
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_fusefs.live.session_record import read_record
from backpoint_repo.cli import build_parser, find_commands
from backpoint_repo.credential import AgentCredential, write_credential
from command_line import COMMAND
from commit_scene import disk_bytes, write
from mounted_repository import MakePoint, MountedRepository
from small_repository import PASSPHRASE, read_disk

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(300_000) + bytes(2 * MIB)


@pytest.fixture
def repository(
    checked_repository: MountedRepository, back_up_bytes: MakePoint
) -> MountedRepository:
    """With one point of `web`."""
    back_up_bytes("web", CONTENT)
    return checked_repository


def live(repository: MountedRepository, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """The records that `backpoint live ... --json` prints."""
    done = run_live(repository, *words, "--json")
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_live(repository: MountedRepository, *words: str) -> subprocess.CompletedProcess[str]:
    """With the folder of sessions beside the repository."""
    return repository.backpoint("live", *words, "--live", place(repository))


def place(repository: MountedRepository) -> Path:
    return repository.root.with_name("live")


def begin(repository: MountedRepository, name: str) -> None:
    """A session of the newest point, without a command."""
    fresh = repository.fresh()
    SessionHome(place(repository), fresh).start(fresh.catalog.refresh()[-1], name)


def opened(repository: MountedRepository, name: str) -> Session:
    """By this process."""
    return SessionHome(place(repository), repository.fresh()).open(name)


def test_a_session_from_start_to_discard(repository: MountedRepository, tmp_path: Path) -> None:
    """The commit is an ordinary point: shown, restored, checked; and the session goes on."""
    (started,) = live(repository, "start", "web@latest", "--name", "trial")
    assert started["vm"] == "web"
    assert Path(started["folder"]) == place(repository) / "trial"
    session = opened(repository, "trial")
    write(session, 0, 123_456, b"written in the session")
    expected = disk_bytes(session, 0)
    session.close()
    (listed,) = live(repository, "list")
    assert (listed["name"], listed["vm"], listed["problem"]) == ("trial", "web", "")
    assert listed["size"] > 0
    assert listed["point_id"] == listed["origin"] == started["point_id"]
    (point,) = live(repository, "commit", "trial", "--label", "repaired")
    assert (point["vm"], point["label"], point["warnings"]) == ("web", "repaired", [])
    shown = json.loads(repository.backpoint("show", f"web@{point['id'][:8]}", "--json").stdout)
    assert shown["capture"]["live"]["origin"] == started["point_id"]
    restored = tmp_path / "restored"
    target = str(restored / "disk.raw")
    restored.mkdir()
    done = repository.backpoint("restore", f"web@{point['id'][:8]}", "--disk", "0", "-o", target)
    assert done.returncode == 0, done.stderr
    assert Path(target).read_bytes() == expected
    done = repository.backpoint("check", "--read-data")
    assert done.returncode == 0, done.stderr
    (listed,) = live(repository, "list")
    assert (listed["point_id"], listed["origin"]) == (point["id"], started["point_id"])
    (discarded,) = live(repository, "discard", "trial", "--yes")
    assert discarded["discarded"]
    assert live(repository, "list") == []
    assert not (place(repository) / "trial").exists()


def test_a_mounted_session_is_committed_frozen_and_discarded(
    repository: MountedRepository,
) -> None:
    """The mount has it: it cuts and goes on, refuses writes, and lets go, while a file is open."""
    live(repository, "start", "web@latest", "--name", "trial")
    repository.mount("--live", str(place(repository)))
    path = repository.place / "live" / "trial" / "disk0-flat.vmdk"
    expected = bytearray(CONTENT)
    disk = os.open(path, os.O_RDWR)
    try:
        for number, data in enumerate((b"before the first", b"before the second")):
            offset = 200_000 + 50_000 * number
            os.pwrite(disk, data, offset)
            expected[offset : offset + len(data)] = data
            (point,) = live(repository, "commit", "trial")
            stored = repository.fresh().point(bytes.fromhex(point["id"]))
            assert read_disk(repository.fresh(), stored.disks[0]) == expected
            assert point["read"] < MIB
            assert os.pread(disk, len(expected), 0) == expected
        assert (listed := live(repository, "list")[0])["in_use"]
        assert listed["point_id"] == point["id"]
        live(repository, "freeze", "trial")
        with pytest.raises(OSError, match="Read-only"):
            os.pwrite(disk, b"x", 0)
        live(repository, "freeze", "trial", "--thaw")
        os.pwrite(disk, b"x", 0)
        live(repository, "discard", "trial", "--yes")
        with pytest.raises(OSError, match=r"Errno (16|116)\b"):
            os.pread(disk, 1, 0)
    finally:
        os.close(disk)
    assert os.listdir(repository.place / "live") == []
    repository.umount()


def test_start_says_where_it_appears_and_how_to_go_on(repository: MountedRepository) -> None:
    """In words a user can type; a name that is taken, or no point, is refused in a sentence."""
    done = run_live(repository, "start", "web@latest")
    assert done.returncode == 0, done.stderr
    assert "session web-1 of web@" in done.stdout
    for said in ("live/web-1", f"mount DIR --live {place(repository)}", "live commit web-1"):
        assert said in done.stderr
    for words, why in (
        (("web@latest", "--name", "web-1"), "already"),
        (("web@latest", "--name", "../x"), "cannot be called"),
        (("web@1999",), "no point"),
    ):
        done = run_live(repository, "start", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert why in done.stderr
    assert [session["name"] for session in live(repository, "list")] == ["web-1"]


def test_the_list_tells_each_state(repository: MountedRepository) -> None:
    """Writable, frozen, in use, and damaged with the reason; a damaged one can be discarded."""
    for name in ("plain", "frozen", "used", "broken"):
        begin(repository, name)
    live(repository, "freeze", "frozen")
    (place(repository) / "broken" / "session.json").write_text("{}")
    before = os.listdir(place(repository))
    session = opened(repository, "used")
    done = run_live(repository, "list")
    session.close()
    lines = {line.split()[0]: line.rstrip() for line in done.stdout.splitlines()}
    assert lines["plain"].endswith("writable")
    assert lines["frozen"].endswith("frozen")
    assert lines["used"].endswith("in use")
    assert "damaged: " in lines["broken"]
    assert "session.json" in lines["broken"]
    live(repository, "discard", "broken", "--yes")
    assert len(os.listdir(place(repository))) == len(before) - 1


def test_freeze_and_thaw(repository: MountedRepository) -> None:
    """Durable from command to command; a frozen session can be committed."""
    begin(repository, "trial")
    live(repository, "freeze", "trial")
    live(repository, "commit", "trial", "--as", "web-frozen")
    assert read_record(place(repository) / "trial").frozen
    assert live(repository, "freeze", "trial", "--thaw") == [
        {"type": "session", "name": "trial", "frozen": False}
    ]
    assert not read_record(place(repository) / "trial").frozen


def test_discard_asks_for_a_word(repository: MountedRepository) -> None:
    """Nobody to ask: refused; `no`: nothing happens; a dry run changes nothing; `y` discards."""
    begin(repository, "trial")
    done = run_live(repository, "discard", "trial")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    (dry,) = live(repository, "discard", "trial", "--dry-run")
    assert not dry["discarded"]
    for answer, code in ((b"no\n", 2), (b"y\n", 0)):
        assert (place(repository) / "trial").exists()
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        command = ("live", "discard", "trial", "--live", place(repository))
        assert typed(repository, command, theirs) == code
        os.close(ours)
    assert not (place(repository) / "trial").exists()


def typed(repository: MountedRepository, words: tuple[str | Path, ...], terminal: int) -> int:
    """The exit code of a command whose input is this terminal, which is closed."""
    environment = os.environ | {
        "BACKPOINT_REPO": str(repository.root),
        "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
    }
    with os.fdopen(terminal) as stdin:
        return subprocess.run(
            [COMMAND, *words], env=environment, stdin=stdin, timeout=60
        ).returncode


def test_what_is_not_there_is_named(repository: MountedRepository) -> None:
    """One sentence, exit code 2; odd names reach no other folder."""
    begin(repository, "trial")
    for words in (("commit", "trail"), ("discard", "../live/trial", "--yes"), ("freeze", ".")):
        done = run_live(repository, *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "session" in done.stderr
    assert not (place(repository) / "trail").exists()
    assert not (place(repository) / "committing").exists()


@pytest.mark.parametrize("action", ["start", "list", "commit", "discard", "freeze"])
def test_each_help_tells_all(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Examples, environment with the folder of sessions, exit codes."""
    parser = build_parser({"live": find_commands()["live"].load()})
    with pytest.raises(SystemExit):
        parser.parse_args(["live", action, "--help"])
    text = capsys.readouterr().out
    examples = f"examples:\n  backpoint live {action}"
    for part in (examples, "BACKPOINT_LIVE", "exit codes:", "--json", "--live"):
        assert part in text


def test_live_starts_light_and_completes(checked_repository: MountedRepository) -> None:
    """Help imports no mount and no vCenter; completion knows the actions, other packages' too."""
    script = (
        "import sys\n"
        "from backpoint_repo.cli import build_parser, find_commands\n"
        "build_parser({'live': find_commands()['live'].load()})\n"
        "print(*({'trio', 'pyfuse3', 'pyVmomi', 'numpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
    completion = checked_repository.backpoint("completion", "bash").stdout
    for action in ("start", "list", "commit", "discard", "freeze", "end", "migrate"):
        assert f"_live_{action}_" in completion


def test_the_agent_credential_is_not_enough(
    repository: MountedRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session shows disks: the owner's key is needed, and that is said."""
    fresh = repository.fresh()
    credential = tmp_path / "agent"
    write_credential(AgentCredential.of(fresh.config, fresh.sealed.keyring.secret), credential)
    monkeypatch.setenv("BACKPOINT_CREDENTIAL", str(credential))
    done = repository.backpoint("live", "start", "web@0", passphrase=None)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
