"""A secret out of the place that the configuration names: a file, a command or the environment.

Decides how each is read, and that none may hang or hand over something that is no text. Refuses to
know what a secret opens; keeps none. The agent runs unattended, so nobody is ever asked.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backpoint_agent.settings.model import SecretSettings
from backpoint_repo.errors import KeyFault
from backpoint_repo.terminal import warn

_SIZE_MAX: Final = 64 << 10
COMMAND_LIMIT_S: Final = 30.0


def read_secret(
    settings: SecretSettings,
    what: str,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float = COMMAND_LIMIT_S,
) -> str:
    """The secret; what: how messages call it ("the password of vCenter dc1").

    environment: the process's own by default. limit_s: for a command. Raises KeyFault where the
    place is missing, empty, hangs, or holds no text; the message names the place, never the secret.
    """
    given = [place for place in (settings.file, settings.command, settings.environment) if place]
    if len(given) != 1:
        raise KeyFault(f"{what}: give exactly one of file, command and environment")
    if settings.file:
        place, data = f"file {settings.file}", _from_file(settings.file, what)
    elif settings.command:
        place, data = "command", _from_command(settings.command, what, limit_s)
    else:
        name = str(settings.environment)
        place = f"environment variable {name}"
        value = (os.environ if environment is None else environment).get(name, "")
        data = value.encode("utf-8", "surrogateescape")
    return _text(data.partition(b"\n")[0].removesuffix(b"\r"), f"{what}: the {place}")


def _text(line: bytes, where: str) -> str:
    if not line:
        raise KeyFault(f"{where} gives nothing in its first line")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise KeyFault(f"{where} gives something that is not UTF-8 text") from None
    if not text.isprintable():
        raise KeyFault(f"{where} gives a line with control characters, which vSphere cannot take")
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
    return bytes(run.stdout)
