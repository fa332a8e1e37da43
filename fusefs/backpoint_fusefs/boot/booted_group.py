"""The VMs of a group as machines: a session each, one mount, a switch that leads nowhere.

Decides in what order these come and go, because the mount must be there before any thread is, and
what each member gets of this machine. When members start and what counts is for `group_run.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.accelerator import find_accelerator
from backpoint_fusefs.boot.booted_point import (
    OWNER,
    BootedPoint,
    BootTerms,
    read_hardware,
    start_in_mount,
)
from backpoint_fusefs.boot.closed_switch import ClosedSwitch, Port
from backpoint_fusefs.boot.console_log import ConsoleLog
from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.group_file import Member
from backpoint_fusefs.boot.group_plan import card_address, plan_memory, probe_addresses
from backpoint_fusefs.boot.group_run import Group, MemberEvent
from backpoint_fusefs.boot.hardware import Hardware
from backpoint_fusefs.boot.host_limits import Host
from backpoint_fusefs.boot.machine import Display
from backpoint_fusefs.boot.port_probe import PortProbe
from backpoint_fusefs.boot.qemu_process import qemu_program
from backpoint_fusefs.boot.session_mount import SessionMount
from backpoint_fusefs.file_names import distinct_names
from backpoint_fusefs.live.boot_trace.last_boot import put_last_boot_ahead
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import UsageError
from backpoint_repo.repository import Repository
from backpoint_repo.sizes import format_size

_SWITCH: Final = "switch"


@dataclass(frozen=True)
class GroupTerms:
    """How a group runs. logs: a folder for the members' consoles. keep: the sessions stay."""

    display: Display = "none"
    logs: Path | None = None
    keep: bool = False


@contextmanager
def boot_group(
    repository: Repository,
    home: SessionHome,
    members: Sequence[Member],
    points: Mapping[str, PointSummary],
    terms: GroupTerms,
    tell: Callable[[MemberEvent], None],
) -> Iterator[Group]:
    """A group that is about to start, see `Group.await_ready`; ended when it is left.

    points: by the members' names. To be called while this process has one thread. Raises
    UsageError, MachineFailed, and what sessions, mounts and stores raise.
    """
    with ExitStack() as opened:
        accelerator = find_accelerator(qemu_program())
        logs = _open_logs(opened, members, terms.logs)
        chosen = {member.title: points[member.title] for member in members}
        sessions = _begin_sessions(opened, repository, home, chosen, terms.keep)
        mount = opened.enter_context(SessionMount(repository, home))
        hardware = [
            read_hardware(repository, chosen[name].point_id.hex(), mount.folder(session))
            for name, session in sessions.items()
        ]
        memory = plan_memory(
            [member.memory for member in members],
            [machine.memory for machine in hardware],
            Host.here().room,
        )
        network = opened.enter_context(_network(mount.scratch, members))
        machines = opened.enter_context(ExitStack())

        def start(member: Member) -> BootedPoint:
            name, number = member.title, members.index(member)
            wire = network.wires[number]
            own = BootTerms(
                switch=(wire.guest, wire.switch),
                display=terms.display,
                memory=memory[number],
                accelerator=accelerator,
                card=card_address(number),
            )
            log = logs[name].write if name in logs else None
            booted = start_in_mount(repository, home, mount, sessions[name], own, log)
            machines.enter_context(booted.machine)
            return booted

        notes = (*_less_memory(members, hardware, memory), *_same_cards(members, hardware))
        yield Group(members, start, network.probes, tell, notes)


@dataclass(frozen=True)
class _Network:
    """wires: of the members, in their order. probes: by name of who has a port to ask at."""

    wires: Sequence[Port]
    probes: Mapping[str, PortProbe]


@contextmanager
def _network(scratch: Path, members: Sequence[Member]) -> Iterator[_Network]:
    """A port of the switch for each member, and for each probe."""
    folder = scratch / _SWITCH
    folder.mkdir()
    near = probe_addresses(members)
    with ExitStack() as opened:
        try:
            switch = opened.enter_context(ClosedSwitch(folder, len(members) + len(near)))
            wires = iter(switch.ports)
            own = [next(wires) for _ in members]
            probes = {
                member.title: opened.enter_context(_probe(next(wires), near[member.title], member))
                for member in members
                if member.title in near
            }
        except OSError as error:
            raise MachineFailed(
                f"there can be no network between the guests: {error.strerror or error}"
            ) from error
        yield _Network(own, probes)


def _probe(wire: Port, near: Sequence[IPv4Address], member: Member) -> PortProbe:
    assert member.ready is not None
    assert member.ready.port is not None
    return PortProbe(wire, near, IPv4Address(member.address), member.ready.port)


def _begin_sessions(
    opened: ExitStack,
    repository: Repository,
    home: SessionHome,
    points: Mapping[str, PointSummary],
    keep: bool,
) -> dict[str, str]:
    """Names of sessions by those of members."""
    sessions = {}
    for name, point in points.items():
        state = home.start(point, None, "" if keep else OWNER)
        if not keep:
            opened.callback(home.discard, state.name)
        put_last_boot_ahead(repository, point.vm, state.folder)
        sessions[name] = state.name
    return sessions


def _open_logs(
    opened: ExitStack, members: Sequence[Member], folder: Path | None
) -> dict[str, ConsoleLog]:
    """Raises UsageError."""
    if folder is None:
        return {}
    names = [member.title for member in members]
    files = distinct_names([f"{name}.log" for name in names], ())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {
            name: opened.enter_context(ConsoleLog(folder / os.fsdecode(file)))
            for name, file in zip(names, files, strict=True)
        }
    except OSError as error:
        raise UsageError(f"consoles cannot be written to {folder}: {error.strerror}") from error


def _less_memory(
    members: Sequence[Member], hardware: Sequence[Hardware], memory: Sequence[int]
) -> Iterator[str]:
    for member, had, gets in zip(members, hardware, memory, strict=True):
        if member.memory is None and gets < had.memory:
            less, more = format_size(gets << 20), format_size(had.memory << 20)
            yield (
                f"{member.title}: {less} of memory in place of {more}: no more is free for all "
                "(`memory` in the group's file asks for more)"
            )


def _same_cards(members: Sequence[Member], hardware: Sequence[Hardware]) -> Iterator[str]:
    """Only first cards are in the network."""
    whose: dict[str, str] = {}
    for member, machine in zip(members, hardware, strict=True):
        address = machine.nics[0].address if machine.nics else ""
        if address in whose:
            yield (
                f"{member.title} and {whose[address]} have the same network card, {address}: "
                "they cannot reach each other"
            )
        elif address:
            whose[address] = member.title
