"""A group of VMs that runs: started in order, each once those before it are ready, watched, ended.

Decides when a member starts, when it counts as ready and what makes the group fail: one that is not
ready in its time, or ends before all are. Where machines come from is for `booted_group.py`, who is
told for the caller. One thread; nothing here waits longer than a look takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from backpoint_fusefs.boot.booted_point import BootedPoint
from backpoint_fusefs.boot.errors import MachineFailed, NoSignOfLife
from backpoint_fusefs.boot.group_file import Member
from backpoint_fusefs.boot.group_plan import starts_at
from backpoint_fusefs.boot.port_probe import PortProbe
from backpoint_fusefs.boot.room_watch import RoomWatch
from backpoint_fusefs.boot.sign_of_life import LifeWatch, SignOfLife, Signs

_LOOK_S: Final = 0.05
_SETTLED_S: Final = 15.0
"""As for a proof: boot screens pause."""

Happening = Literal["started", "ready", "failed", "room", "ended"]


@dataclass(frozen=True)
class MemberEvent:
    """seconds: from the group's beginning. sign: of a ready member that had to show one. reason:
    of one that failed; what is to be said of its disk's room."""

    what: Happening
    name: str
    seconds: float
    booted: BootedPoint
    sign: SignOfLife | None = None
    reason: str = ""


@dataclass(frozen=True)
class ReadyMember:
    """at: on the monotonic clock. sign None: it had to show none."""

    at: float
    sign: SignOfLife | None


class MemberFailed(MachineFailed):
    """A member did not get ready, or did not stay; name: whose failure the group's is."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name


class Group:
    """Members in their order. Ending the machines is for who makes `start`."""

    def __init__(
        self,
        members: Sequence[Member],
        start: Callable[[Member], BootedPoint],
        probes: Mapping[str, PortProbe],
        tell: Callable[[MemberEvent], None],
        notes: Sequence[str] = (),
    ) -> None:
        """start: returns with the machine running. probes: by name of who has a port to ask at.
        notes: what is not as the VMs had it, for the user."""
        self.notes = notes
        self._members = members
        self._start = start
        self._probes = probes
        self._tell = tell
        self._began = time.monotonic()
        self._watches: dict[str, LifeWatch | None] = {}
        self._rooms: dict[str, RoomWatch] = {}
        self._gone: set[str] = set()
        self.booted: dict[str, BootedPoint] = {}
        self.ready: dict[str, ReadyMember] = {}

    def await_ready(self, timeout_s: float | None) -> None:
        """timeout_s: from the group's beginning. Raises MemberFailed, MachineFailed."""
        while len(self.ready) < len(self._members):
            for member in self._members:
                self._look_at(member)
            if timeout_s is not None and time.monotonic() >= self._began + timeout_s:
                self._fail_late(timeout_s)
            time.sleep(_LOOK_S)

    def attend(self, timeout_s: float | None) -> str:
        """Until all have ended by themselves, or so long after the beginning; which of them."""
        while len(self._gone) < len(self._members):
            if timeout_s is not None and time.monotonic() >= self._began + timeout_s:
                return "the time is over"
            for name in self.booted.keys() - self._gone:
                self._rooms[name].look()
                if not self.booted[name].machine.running:
                    self._gone.add(name)
                    self._say("ended", name)
            time.sleep(_LOOK_S)
        return "by the guests"

    def _look_at(self, member: Member) -> None:
        name = member.title
        if name not in self.booted:
            ready_at = {one: ready.at for one, ready in self.ready.items()}
            due = starts_at(member, self._began, ready_at)
            if due is not None and time.monotonic() >= due:
                self._begin(member)
        elif name not in self.ready:
            self._watch(name, member)
        elif not self.booted[name].machine.running:
            self._fail(name, "ended by itself before all were ready")

    def _begin(self, member: Member) -> None:
        name, ready = member.title, member.ready
        try:
            self.booted[name] = booted = self._start(member)
            self._rooms[name] = RoomWatch(booted.machine, partial(self._say_of_room, name))
        except MachineFailed as error:
            raise MemberFailed(name, f"cannot be started: {error}") from error
        self._say("started", name)
        if ready is None:
            self._is_ready(name, None)
            return
        settled = _SETTLED_S if ready.screen else None
        signs = Signs(ready.text or "", is_pattern=True, settled_s=settled)
        self._watches[name] = LifeWatch(booted.machine, signs, ready.timeout)

    def _watch(self, name: str, member: Member) -> None:
        watch, probe = self._watches[name], self._probes.get(name)
        assert watch is not None
        if probe is not None and member.ready is not None and probe.look():
            took = time.monotonic() - self.booted[name].machine.started
            what = f"port {member.ready.port}: it accepts connections"
            self._is_ready(name, SignOfLife("port", what, took))
            return
        try:
            sign = watch.look()
        except NoSignOfLife as failure:
            how = f"; {probe.state}" if probe is not None else ""
            self._fail(name, f"is not ready: {failure}{how}", failure)
        if sign is not None:
            self._is_ready(name, sign)

    def _say_of_room(self, name: str, sentence: str) -> None:
        self._say("room", name, reason=sentence)

    def _is_ready(self, name: str, sign: SignOfLife | None) -> None:
        self.ready[name] = ReadyMember(time.monotonic(), sign)
        self._say("ready", name, sign)

    def _fail_late(self, timeout_s: float) -> None:
        late = [one.title for one in self._members if one.title not in self.ready]
        if late:
            names = ", ".join(late)
            raise MachineFailed(f"not all were ready within {timeout_s:g} s; not yet: {names}")

    def _fail(self, name: str, reason: str, cause: Exception | None = None) -> None:
        self._say("failed", name, reason=reason)
        raise MemberFailed(name, reason) from cause

    def _say(
        self,
        what: Happening,
        name: str,
        sign: SignOfLife | None = None,
        reason: str = "",
    ) -> None:
        seconds = time.monotonic() - self._began
        self._tell(MemberEvent(what, name, seconds, self.booted[name], sign, reason))
