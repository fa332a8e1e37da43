"""The last level: does the point's machine come up? In a session that is discarded, cut off from
every network, until a sign of life.

Decides what a boot claims: the sign that was seen and how long it took, nothing about what the
guest would do for its users. That a machine cannot be started at all (no QEMU, no memory) is no
verdict on its point and is raised. How it is started and watched is in `boot/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from backpoint_fusefs.boot.booted_point import OWNER, BootedPoint, BootTerms, boot_session
from backpoint_fusefs.boot.errors import MachineFailed, NoSignOfLife
from backpoint_fusefs.boot.sign_of_life import SignOfLife, Signs, await_sign
from backpoint_fusefs.live.boot_trace.last_boot import put_last_boot_ahead
from backpoint_fusefs.live.boot_trace.trace_files import ask_for_trace, recorded_trace
from backpoint_fusefs.live.session_home import SessionHome, SessionState
from backpoint_fusefs.prove.trial import Trial
from backpoint_repo.boot_trace import TracedRange
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import BackpointError
from backpoint_repo.point_proof import SCREENSHOT_MAX
from backpoint_repo.repository import Repository
from backpoint_repo.sizes import format_size


class BootTrial:
    """Boots one point after the other. To be used while this process has one thread."""

    def __init__(
        self,
        repository: Repository,
        home: SessionHome,
        terms: BootTerms,
        signs: Signs,
        timeout_s: float,
    ) -> None:
        self._repository = repository
        self._home = home
        self._terms = terms
        self._signs = signs
        self._timeout_s = timeout_s

    def run(self, point: PointSummary) -> Trial:
        """Raises MachineFailed where it cannot be tried, and what sessions, mounts and stores
        raise."""
        state = self._home.start(point, None, OWNER)
        try:
            trial = self._boot(state, point)
        except BaseException:
            with suppress(BackpointError):
                self._home.discard(state.name)
            raise
        try:
            self._home.discard(state.name)
        except BackpointError as error:
            # What was seen is worth more than that.
            left = f"its session {state.name} could not be discarded: {error}"
            return replace(trial, notes=(*trial.notes, left))
        return trial

    def _boot(self, state: SessionState, point: PointSummary) -> Trial:
        """What this boot reads is written down, what the last one read is fetched ahead."""
        with suppress(OSError):
            ask_for_trace(state.folder)
        put_last_boot_ahead(self._repository, point.vm, state.folder)
        with boot_session(self._repository, self._home, state.name, self._terms) as booted:
            seen = self._watch(booted)
            picture = _picture(booted, seen)
        return _trial(booted, seen, picture, recorded_trace(state.folder))

    def _watch(self, booted: BootedPoint) -> SignOfLife | NoSignOfLife:
        try:
            return await_sign(booted.machine, self._signs, self._timeout_s)
        except NoSignOfLife as failure:
            return failure


def _picture(booted: BootedPoint, seen: SignOfLife | NoSignOfLife) -> bytes | None:
    if isinstance(seen, NoSignOfLife):
        return seen.screenshot
    with suppress(MachineFailed):
        return booted.machine.screenshot()
    return None


def _trial(
    booted: BootedPoint,
    seen: SignOfLife | NoSignOfLife,
    picture: bytes | None,
    trace: Sequence[TracedRange],
) -> Trial:
    machine = booted.machine
    notes = machine.notes
    if picture is not None and len(picture) > SCREENSHOT_MAX:
        notes += (f"its screenshot of {format_size(len(picture))} is too large to be kept",)
        picture = None
    if machine.accelerator != "kvm":
        notes += (f"emulated, not by KVM: {machine.why_not_kvm}",)
    if isinstance(seen, NoSignOfLife):
        return Trial(False, str(seen), notes, accelerator=machine.accelerator, screenshot=picture)
    return Trial(
        True,
        f"{seen.detail}, {seen.seconds:.1f} s after its start",
        notes,
        f"{seen.kind}: {seen.detail}",
        seen.seconds,
        machine.accelerator,
        picture,
        trace,
    )
