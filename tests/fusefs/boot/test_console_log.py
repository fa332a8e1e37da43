"""A guest's console in a file: private, there at once, and never more than a disk can take."""

from __future__ import annotations

from pathlib import Path

import pytest

from backpoint_fusefs.boot.console_log import ConsoleLog


def test_what_is_said_is_there_at_once(tmp_path: Path) -> None:
    """In place of what an earlier boot said."""
    path = tmp_path / "web.log"
    path.write_bytes(b"yesterday's words, and more than today's")
    with ConsoleLog(path) as log:
        log.write(b"Linux ")
        log.write(b"version 6\n")
        assert path.read_bytes() == b"Linux version 6\n"


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Consoles show what guests hold."""
    with ConsoleLog(tmp_path / "web.log") as log:
        assert log.path.stat().st_mode & 0o777 == 0o600


def test_a_guest_that_never_stops_is_cut(tmp_path: Path) -> None:
    """And that is said, once."""
    with ConsoleLog(tmp_path / "web.log", 10) as log:
        for _ in range(5):
            log.write(b"words ")
        assert log.path.read_bytes() == b"words word\n[no more of it is kept]\n"


def test_nobody_is_led_elsewhere(tmp_path: Path) -> None:
    """A link in its place is not followed."""
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "web.log").symlink_to("precious")
    with pytest.raises(OSError, match="symbolic"):
        ConsoleLog(tmp_path / "web.log")
    assert (tmp_path / "precious").read_bytes() == b"kept"
