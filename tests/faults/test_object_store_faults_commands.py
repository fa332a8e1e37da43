"""Commands over a line that does harm to a bucket: one sentence that tells what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import CommandLine
from faults.bucket_scene import NEW_SEED, BucketScene, content_of
from paced_proxy import Harm, Kind, PacedProxy
from small_repository import PASSPHRASE

RESTORE = ("restore", "web@latest", "--disk", "0", "-o", "restored", "--no-cache")
BACKUP = ("backup", "image", "--vm", "web", "disk")


@pytest.fixture
def command(scene: BucketScene, tmp_path: Path) -> CommandLine:
    """Over the line, as the owner."""
    (tmp_path / "disk").write_bytes(content_of(NEW_SEED))
    own = {"BACKPOINT_REPO": scene.address, "BACKPOINT_PASSPHRASE": PASSPHRASE.text}
    return CommandLine(tmp_path, scene.environment() | own)


def test_a_command_whose_answer_is_lost(
    scene: BucketScene, line: PacedProxy, command: CommandLine
) -> None:
    """One point, and not a word of a failure."""
    line.harm(Harm("lose-answer", "PUT", "/points/"))
    record = command.run("--json", *BACKUP).record
    assert line.counts().harmed
    scene.contents[bytes.fromhex(record["id"])] = content_of(NEW_SEED)
    scene.assert_sound()


def test_a_restore_that_is_broken_off_twice(
    scene: BucketScene, line: PacedProxy, command: CommandLine
) -> None:
    line.harm(Harm("reset-answer", "GET", "/packs/"))
    line.harm(Harm("cut-answer", "GET", "/packs/", first=2))
    command.run(*RESTORE)
    assert line.counts().harmed == 2
    assert (command.folder / "restored").read_bytes() in scene.contents.values()


@pytest.mark.parametrize(
    ("kind", "method", "key", "words", "says"),
    [
        ("expired-token", "PUT", "/packs/", BACKUP, "expired"),
        ("clock-skew", "LIST", "points/", ("points",), "set this machine's clock"),
        ("wrong-region", "GET", "/config", ("points",), "eu-west-1"),
        ("access-denied", "GET", "/packs/", RESTORE, "may not read"),
        ("access-denied", "PUT", "/trash/", ("collect",), "may not write"),
    ],
)  # fmt: skip
def test_what_commands_say(
    scene: BucketScene,
    line: PacedProxy,
    command: CommandLine,
    kind: Kind,
    method: str,
    key: str,
    words: tuple[str, ...],
    says: str,
) -> None:
    """Exit code 4, and one line that tells what to set right; nothing is left that looks whole."""
    line.harm(Harm(kind, method, key, times=None))
    said = command.run(*words, code=4)
    last = said.err.rstrip("\n").rpartition("\n")[2]
    assert last.startswith("backpoint: ")
    assert says in last
    assert not (command.folder / "restored").exists()
    line.calm()
    scene.assert_sound()
