"""Command lines on a new repository in a local directory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backpoint_repo.store.local import LocalStore
from command_line import CommandLine, make_repository
from repo.copying.resealed_scene import THERE, owned_by_another
from small_repository import StandingClock

MIB = 1 << 20


@pytest.fixture
def lines(tmp_path: Path) -> tuple[CommandLine, CommandLine]:
    return make_repository(tmp_path, tmp_path / "repo")


@pytest.fixture
def owner(lines: tuple[CommandLine, CommandLine]) -> CommandLine:
    """Commands with the passphrase; its slot costs nothing to open."""
    return lines[0]


@pytest.fixture
def agent(lines: tuple[CommandLine, CommandLine]) -> CommandLine:
    """Commands with the agent credential."""
    return lines[1]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """An empty repository with other keys."""
    owned_by_another(LocalStore(tmp_path / "there"), StandingClock())
    return tmp_path / "there"


@pytest.fixture
def both(owner: CommandLine, there: Path) -> CommandLine:
    """Commands with the owners' passphrases of both."""
    passphrase = owner.variables["BACKPOINT_PASSPHRASE"]
    return owner.having(BACKPOINT_PASSPHRASE=passphrase, BACKPOINT_TO_PASSPHRASE=THERE.text)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 3 MiB: 1 MiB of data, a hole, 1 MiB of data."""
    path = tmp_path / "disk.raw"
    content = random.Random(7)
    with path.open("wb") as file:
        file.write(content.randbytes(MIB))
        file.seek(2 * MIB)
        file.write(content.randbytes(MIB))
    return path
