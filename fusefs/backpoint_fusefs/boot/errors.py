"""What goes wrong with a machine that is booted, for users."""

from __future__ import annotations

from backpoint_repo.errors import BackpointError


class MachineFailed(BackpointError):
    """The machine could not be started, or is not what it should be any more."""

    exit_code = 8


class NoSignOfLife(MachineFailed):
    """The guest did not show in time what was waited for. console: its last words, as text that is
    safe for a terminal. screenshot: a PNG, where there was a screen."""

    def __init__(self, message: str, console: str = "", screenshot: bytes | None = None) -> None:
        super().__init__(message)
        self.console = console
        self.screenshot = screenshot
