"""Where a passphrase comes from: an environment variable, a file, a command, or a person.

Never from an argument, which every user of the machine can read. Exactly one source may be set:
with two, nobody could say which one opened the repository. Knows nothing of what secrets open.
"""

from __future__ import annotations

import getpass
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_repo.errors import KeyFault
from backpoint_repo.terminal import warn

_SIZE_MAX: Final = 64 << 10
_READABLE_BY_ALL: Final = stat.S_IROTH


@dataclass(frozen=True)
class SecretSource:
    """The variables that may hold one secret: `variable`, and it with _FILE and _COMMAND.

    what: how the secret is called when somebody is asked for it. instead: variables of others that
    would do as well, for the message where there is none.
    """

    variable: str
    what: str
    environment: Mapping[str, str]
    instead: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The variables, set or not."""
        return [self.variable, f"{self.variable}_FILE", f"{self.variable}_COMMAND"]

    def chosen(self) -> list[str]:
        """Those that are set; an empty one counts as not set."""
        return [name for name in self.names() if self.environment.get(name)]

    def read(self, *, twice: bool = False) -> str:
        """The secret; `twice`: ask again, against slips, where a person types it.

        Raises KeyFault where there is no source, more than one, or the one fails.
        """
        chosen = self.chosen()
        refuse_several(chosen)
        if not chosen:
            return self._ask(twice=twice)
        value = self.environment[chosen[0]]
        if chosen[0] == self.variable:
            return value
        secret = _from_file(value) if chosen[0].endswith("_FILE") else _from_command(value)
        if not secret:
            raise KeyFault(f"{chosen[0]}: its first line is empty, so there is no {self.what}")
        return secret

    def _ask(self, *, twice: bool) -> str:
        if not sys.stdin.isatty():
            *ways, last = (*self.names(), *self.instead)
            raise KeyFault(
                f"no {self.what}: set {', '.join(ways)} or {last}, or type it on a terminal"
            )
        try:
            secret = getpass.getpass(f"{self.what}: ")
            if twice and getpass.getpass(f"{self.what}, again: ") != secret:
                raise KeyFault(f"the two do not match; no {self.what} was set")
        except EOFError:
            raise KeyFault(f"no {self.what} was typed") from None
        if not secret:
            raise KeyFault(f"no {self.what} was typed")
        return secret


def refuse_several(names: list[str]) -> None:
    """Raises KeyFault where more than one variable is set."""
    if len(names) > 1:
        raise KeyFault(f"{' and '.join(names)} are set; only one of them may be")


def _from_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_SIZE_MAX)
    except OSError as error:
        raise KeyFault(f"cannot read the passphrase file {path}: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & _READABLE_BY_ALL:
        warn(f"every user of this machine can read {path}; chmod 600 it")
    return _first_line(data)


def _from_command(command: str) -> str:
    try:
        words = shlex.split(command)
        run = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError, IndexError) as error:
        raise KeyFault(f"cannot run the passphrase command {command!r}: {error}") from error
    if run.returncode != 0:
        raise KeyFault(f"the passphrase command {command!r} ended with {run.returncode}")
    return _first_line(run.stdout)


def _first_line(data: bytes) -> str:
    """Bytes that are no UTF-8 become surrogates: a passphrase may be made of any bytes."""
    return data.partition(b"\n")[0].removesuffix(b"\r").decode("utf-8", "surrogateescape")
