"""Where a secret comes from that a configuration names: a file, a command, an environment variable.

Decides how each is read, and that none may hang, and that nobody is ever asked, because an agent
runs unattended. Refuses to know what a secret opens and which letters it may have. Messages name
the place, never the secret.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from backpoint_repo.errors import KeyFault
from backpoint_repo.terminal import warn

COMMAND_LIMIT_S: Final = 30.0
_SIZE_MAX: Final = 64 << 10


class SecretLine(NamedTuple):
    """line: without its end. where: it came from, for messages."""

    line: bytes
    where: str


@dataclass(frozen=True)
class SecretPlace:
    """Exactly one is set. command: split into words as a shell would, and run without one."""

    file: Path | None = None
    command: str | None = None
    environment: str | None = None

    def read(
        self, what: str, environment: Mapping[str, str], limit_s: float = COMMAND_LIMIT_S
    ) -> SecretLine:
        """The first line. what: `the secret_access_key of s3://bucket`. limit_s: of a command.

        Raises KeyFault where the place is missing, hangs, or has nothing in its first line.
        """
        if self.file is not None:
            where, data = f"file {self.file}", _from_file(self.file, what)
        elif self.command is not None:
            where, data = "command", _from_command(self.command, what, limit_s)
        else:
            name = self.environment or ""
            where = f"environment variable {name}"
            data = environment.get(name, "").encode("utf-8", "surrogateescape")
        line = data.partition(b"\n")[0].removesuffix(b"\r")
        if not line:
            raise KeyFault(f"{what}: the {where} gives nothing in its first line")
        return SecretLine(line, f"{what}: the {where}")

    def read_ascii(self, what: str, environment: Mapping[str, str]) -> str:
        """The same, of letters that can be sent in a header. Raises KeyFault for others."""
        line, where = self.read(what, environment)
        text = line.decode("ascii", "replace")
        if not (text.isascii() and text.isprintable()):
            raise KeyFault(f"{where} gives something that is no line of ASCII")
        return text


def _from_file(path: Path, what: str) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_SIZE_MAX)
    except OSError as error:
        raise KeyFault(f"{what}: cannot read {path}: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        warn(f"every user of this machine can read {path}; chmod 600 it")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe that nobody writes must not hang a backup of the night."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _from_command(command: str, what: str, limit_s: float) -> bytes:
    """The command's own words may be secret (a token), so messages give its first one alone."""
    try:
        words = shlex.split(command)
        name = words[0]
    except (ValueError, IndexError):
        raise KeyFault(f"{what}: the command cannot be split into words") from None
    try:
        run = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise KeyFault(f"{what}: the command {name} did not end within {limit_s:g} s") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its words are not usable"
        raise KeyFault(f"{what}: cannot run the command {name}: {reason}") from None
    if run.returncode != 0:
        raise KeyFault(f"{what}: the command {name} ended with {run.returncode}")
    return bytes(run.stdout[:_SIZE_MAX])
