"""Real commands at once on one repository, killed and stopped at any moment: a short run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faults.thrash import thrash

_SECONDS = float(os.environ.get("BACKPOINT_THRASH", "14"))
"""Of work; starting, looking and clearing up come on top."""


@pytest.mark.timeout(_SECONDS + 300)
def test_promises_are_kept_while_commands_are_killed(tmp_path: Path) -> None:
    counts = thrash(tmp_path / "thrash", 20261122, _SECONDS)
    assert counts["backup 0"]
