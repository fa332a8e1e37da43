"""Running one of the programs that make disks, and saying what it said when it fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path


def run(
    *command: str | Path,
    text: str | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program in `folder` with `text` as its input; its standard output.

    `environment` is added to ours. Raises RuntimeError with what the program said when it failed.
    """
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        input=text,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {said}")
    return done.stdout
