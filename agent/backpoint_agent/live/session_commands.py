"""Sessions as the agent reaches them: by `backpoint live` as a child process.

Decides how a child is called and how long it may take. What a session is belongs to the mount,
which the agent does not know. No secret is in a child's arguments.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backpoint_agent.errors import TaskFailed, WaitTooLong
from backpoint_agent.live.repository_access import RepositoryAccess

LIMIT_S: Final = 300.0
_OUTPUT_MAX: Final = 16 << 20
_WORDS_MAX: Final = 600
_BACKPOINT: Final = (
    sys.executable,
    "-I",
    "-c",
    "from backpoint_repo.cli import main; raise SystemExit(main())",
)


@dataclass(frozen=True)
class StartedSession:
    """folder: where its own files are, `<home>/<name>`."""

    name: str
    folder: Path

    @property
    def home(self) -> str:
        """The folder of sessions it is in."""
        return str(self.folder.parent)


def start_session(access: RepositoryAccess, home: str, point: str, name: str) -> StartedSession:
    """point: `VM@ID`. home: "" for the default. Raises TaskFailed, WaitTooLong."""
    words = ["live", "start", point, "--name", name, "--owner", "vcenter", *_home(home)]
    record = next(iter(ask(access, f"starting the session {name}", words)), {})
    folder = record.get("folder")
    if record.get("name") != name or not isinstance(folder, str) or not folder.startswith("/"):
        raise TaskFailed(f"starting the session {name}: `live start` does not say where it is")
    return StartedSession(name, Path(folder))


def discard_session(access: RepositoryAccess, home: str, name: str) -> str:
    """Also one that is gone already; what became of it. Raises TaskFailed, WaitTooLong."""
    words = ["live", "discard", name, "--yes", "--force", *_home(home)]
    try:
        ask(access, f"discarding the session {name}", words)
    except TaskFailed:
        listed = ask(access, "listing the sessions", ["live", "list", *_home(home)])
        if any(record.get("name") == name for record in listed):
            raise
        return f"the session {name} was not there any more"
    return f"the session {name} was discarded"


def ask(
    access: RepositoryAccess, what: str, words: Sequence[str], limit_s: float = LIMIT_S
) -> list[Mapping[str, Any]]:
    """The records that a command prints. Raises TaskFailed with the command's own last words where
    it fails, WaitTooLong."""
    try:
        done = subprocess.run(
            [*_BACKPOINT, "-r", access.path, "--json", *words],
            env=dict(access.environment),
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WaitTooLong(f"{what} took longer than {limit_s:g} s") from None
    except OSError as error:
        raise TaskFailed(f"{what}: cannot run {sys.executable}: {error.strerror}") from error
    if done.returncode != 0:
        raise TaskFailed(f"{what}: {_last_words(done.stderr) or f'ended with {done.returncode}'}")
    return _records(what, done.stdout)


def _home(home: str) -> list[str]:
    return ["--live", home] if home else []


def _last_words(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    text = lines[-1].removeprefix("backpoint: ") if lines else ""
    return "".join(char if char.isprintable() else " " for char in text)[:_WORDS_MAX]


def _records(what: str, printed: bytes) -> list[Mapping[str, Any]]:
    if len(printed) > _OUTPUT_MAX:
        raise TaskFailed(f"{what}: it prints more than can be meant")
    try:
        records = [json.loads(line) for line in printed.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        raise TaskFailed(f"{what}: what it prints is no JSON") from None
    return [record for record in records if isinstance(record, dict)]
