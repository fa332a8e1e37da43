"""The installed `backpoint` command, run as a user runs it, on one repository.

Decides the environment: nothing of ours is inherited. What a command must say is the test's
business.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backpoint_repo.credential import AgentCredential, write_credential
from backpoint_repo.repository import Passphrase, Repository, open_repository
from backpoint_repo.store.local import LocalStore
from small_repository import PASSPHRASE, new_repository

COMMAND: Final = Path(sys.executable).with_name("backpoint")
_LIMIT_S: Final = 120


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON record on stdout."""
        record = json.loads(self.out)
        assert isinstance(record, dict)
        return record

    @property
    def error(self) -> str:
        """What stderr says, which must be one line of ours."""
        assert self.err.startswith("backpoint: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("backpoint: ").rstrip("\n")


@dataclass(frozen=True)
class CommandLine:
    """Commands in `folder` with these BACKPOINT_ variables and no others."""

    folder: Path
    variables: Mapping[str, str]

    @property
    def repo(self) -> Path:
        return Path(self.variables["BACKPOINT_REPO"])

    def run(self, *words: str | Path | bytes, code: int = 0, cwd: Path | None = None) -> Said:
        """Run to its end; it must end with `code`, and never with a traceback."""
        with self.start(*words, cwd=cwd) as process:
            out, err = process.communicate(timeout=_LIMIT_S)
        said = Said(process.returncode, out.decode(), err.decode())
        assert said.code == code, said
        assert "Traceback" not in said.err, said.err
        return said

    def start(self, *words: str | Path | bytes, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Begin a command; its input is empty, its outputs are pipes."""
        return subprocess.Popen(
            [COMMAND, *words],
            cwd=cwd or self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def environment(self) -> dict[str, str]:
        """All variables a command sees."""
        ours = {name: text for name, text in os.environ.items() if "BACKPOINT" not in name}
        return ours | dict(self.variables)

    def having(self, **variables: str | Path) -> CommandLine:
        """The same, with these variables and BACKPOINT_REPO only."""
        given = {name: str(value) for name, value in variables.items()}
        return CommandLine(self.folder, {"BACKPOINT_REPO": str(self.repo)} | given)


def make_repository(folder: Path, repo: Path) -> tuple[CommandLine, CommandLine]:
    """A repository with a cheap key slot; commands as its owner, and as its agent."""
    repository = new_repository(LocalStore(repo))
    agent = folder / "agent.credential"
    keyring = repository.sealed.keyring
    write_credential(AgentCredential.of(repository.config, keyring.secret), agent)
    bare = CommandLine(folder, {"BACKPOINT_REPO": str(repo)})
    owner = bare.having(BACKPOINT_PASSPHRASE=PASSPHRASE.text)
    return owner, bare.having(BACKPOINT_CREDENTIAL=agent)


def opened(line: CommandLine, passphrase: Passphrase = PASSPHRASE) -> Repository:
    """The repository that a command line works on."""
    return open_repository(LocalStore(line.repo), passphrase)
