"""How the demo looks: numbered steps with their time, commands and a few lines of what they said.

Decides what is shown and when a step has failed; knows nothing of what the steps do.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

_SHOWN_LINES = 14
_FAILURE_LINES = 40
_END_S = 20


class StepFailed(Exception):
    """A step did not do what it must; the message names the step and holds what was said."""


class Stage:
    """Runs commands in `folder`, shows them with paths below it shortened, and times the steps."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._start = time.monotonic()
        self._number = 0
        self.step_name = "none"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show a heading, then the time the block took. Raises StepFailed where it went wrong."""
        self._number += 1
        self.step_name = name
        print(self._paint(f"{self._number:2}. {name}", "1"), flush=True)
        start = time.monotonic()
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise StepFailed(f"step {self._number} failed: {name}\n{error}") from error
        print(self._paint(f"    {time.monotonic() - start:.2f} s", "32"), flush=True)

    def run(
        self,
        *command: str | Path,
        environment: Mapping[str, str | None] | None = None,
        shown_lines: int = _SHOWN_LINES,
        hidden: str = "",
        code: int = 0,
    ) -> str:
        """Run a command that must end with `code`; what it said. Raises RuntimeError if not.

        Lines that begin with the regular expression `hidden` are not shown.
        """
        got, said = self._call(command, environment or {})
        if got != code:
            last = "\n".join(said.splitlines()[-_FAILURE_LINES:])
            raise RuntimeError(f"{self._shown(command)} ended with {got}:\n{last}")
        self._show_lines(said, shown_lines, hidden)
        return said

    def run_refused(
        self, *command: str | Path, code: int, environment: Mapping[str, str | None] | None = None
    ) -> None:
        """Run a command that must end with `code` and say why. Raises RuntimeError otherwise."""
        got, said = self._call(command, environment or {})
        self._show_lines(said, _SHOWN_LINES)
        if got != code or not said.strip():
            raise RuntimeError(f"{self._shown(command)} ended with {got}, not with {code}")
        self.note(f"refused, exit code {got}")

    @contextlib.contextmanager
    def running(self, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """A command that runs beside the block, and is ended with it if it still runs then."""
        with self._started(command, {}, subprocess.DEVNULL) as process:
            try:
                yield process
            finally:
                _end(process)

    def note(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def require(self, holds: bool, otherwise: str) -> None:
        """Raises RuntimeError saying `otherwise` unless it holds."""
        if not holds:
            raise RuntimeError(otherwise)

    def conclude(self, text: str, *, good: bool) -> None:
        """The last words of the demo: on standard output if good, else on standard error."""
        if good:
            print(self._paint(text, "1;32"), flush=True)
        else:
            print(self._paint(text, "1;31"), file=sys.stderr, flush=True)

    def _call(
        self, command: tuple[str | Path, ...], changes: Mapping[str, str | None]
    ) -> tuple[int, str]:
        """Run and wait; a variable that `changes` maps to None is taken away."""
        # A file, no pipe: a mount that goes on in the background would hold a pipe open for ever.
        with (
            tempfile.TemporaryFile() as output,
            self._started(command, changes, output) as process,
        ):
            try:
                code = process.wait()
            except KeyboardInterrupt:
                _end(process)
                raise
            output.seek(0)
            return code, output.read().decode(errors="replace")

    def _started(
        self,
        command: tuple[str | Path, ...],
        changes: Mapping[str, str | None],
        output: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        print(self._paint(f"    $ {self._prefix(changes)}{self._shown(command)}", "36"), flush=True)
        together = {**self._environment, **changes}
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self._folder,
            env={key: value for key, value in together.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def _show_lines(self, said: str, limit: int, hidden: str = "") -> None:
        lines = said.replace(f"{self._folder}/", "").splitlines()
        shown = [line for line in lines if not hidden or not re.match(hidden, line)][:limit]
        for line in shown:
            print(f"      {line}")
        if len(lines) > len(shown):
            print(f"      ... {len(lines) - len(shown)} more lines")

    def _prefix(self, changes: Mapping[str, str | None]) -> str:
        words = [f"{key}={value} " for key, value in changes.items() if value is not None]
        return "".join(words).replace(f"{self._folder}/", "")

    def _shown(self, command: tuple[str | Path, ...]) -> str:
        return shlex.join(str(word).replace(f"{self._folder}/", "") for word in command)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours else text


def _end(process: subprocess.Popen[bytes]) -> None:
    """Does nothing to one that has ended."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
