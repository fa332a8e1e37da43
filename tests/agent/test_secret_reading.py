"""Secrets out of files, commands and the environment: found, or missed in clear words."""

from __future__ import annotations

import os
import shlex
import traceback
from pathlib import Path

import pytest

from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import SecretSettings
from backpoint_repo.errors import KeyFault

WHAT = "the password of dc1"
SECRET = "pass wörd #1"


def _file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    file = folder / "secret"
    file.write_bytes(data)
    file.chmod(mode)
    return file


def test_every_place(tmp_path: Path) -> None:
    """The first line counts, blanks in it too, whatever ends it."""
    for end in ("", "\n", "\r\n", "\nsecond line\n"):
        data = (SECRET + end).encode()
        file = _file(tmp_path, data)
        assert read_secret(SecretSettings(file=file), WHAT) == SECRET
        command = f"cat {shlex.quote(str(file))}"
        assert read_secret(SecretSettings(command=command), WHAT) == SECRET
    environment = {"VC": SECRET}
    assert read_secret(SecretSettings(environment="VC"), WHAT, environment=environment) == SECRET


def test_a_command_is_no_shell_line(tmp_path: Path) -> None:
    """Its words go to the program as they are."""
    command = f"printf %s '$HOME; touch {tmp_path}/made'"
    assert read_secret(SecretSettings(command=command), WHAT).startswith("$HOME;")
    assert not (tmp_path / "made").exists()


def test_a_file_that_everybody_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is used, and said."""
    file = _file(tmp_path, b"secret\n", 0o644)
    assert read_secret(SecretSettings(file=file), WHAT) == "secret"
    assert "every user of this machine can read" in " ".join(capsys.readouterr().err.split())


def test_a_command_that_hangs() -> None:
    """It is ended at its limit."""
    with pytest.raises(KeyFault, match=r"sleep did not end within 0\.1 s"):
        read_secret(SecretSettings(command="sleep 600"), WHAT, limit_s=0.1)


def test_a_pipe_that_nobody_writes(tmp_path: Path) -> None:
    """It gives nothing, at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(KeyFault, match="gives nothing"):
        read_secret(SecretSettings(file=pipe), WHAT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "gives nothing"),
        (b"\nsecond\n", "gives nothing"),
        (b"\xff\xfeqwertz\n", "not UTF-8"),
        (b"qwertz\x00uiop\n", "control characters"),
        (b"qwertz\x1buiop\n", "control characters"),
    ],
)
def test_what_is_no_password(tmp_path: Path, data: bytes, words: str) -> None:
    """The place and the flaw are named, the content is not."""
    with pytest.raises(KeyFault, match=f"{WHAT}: the file .*{words}") as failed:
        read_secret(SecretSettings(file=_file(tmp_path, data)), WHAT)
    assert "qwertz" not in "".join(traceback.format_exception(failed.value))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "false ended with 1"),
        ("/nonexistent/helper --token abc", "cannot run the command /nonexistent/helper: No such"),
        ("'open", "cannot be split"),
        ("   ", "exactly one"),
    ],
)
def test_commands_that_fail(command: str, words: str) -> None:
    """The command is named by its first word: the others may be secret."""
    with pytest.raises(KeyFault, match=words) as failed:
        read_secret(SecretSettings.model_construct(command=command.strip()), WHAT)
    assert "abc" not in str(failed.value)


def test_places_that_are_missing(tmp_path: Path) -> None:
    """A variable that is not set and a file that is not there are named."""
    with pytest.raises(KeyFault, match="environment variable VC"):
        read_secret(SecretSettings(environment="VC"), WHAT, environment={})
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(KeyFault, match=f"cannot read {missing}"):
            read_secret(SecretSettings(file=missing), WHAT)
