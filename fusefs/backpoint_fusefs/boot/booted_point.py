"""A restore point that runs: session, mount and machine put together, and taken apart again.

Decides whose session it is, and that nothing of a boot stays behind unless it is asked for. The
parts know nothing of each other; what the guest is waited for is the caller's affair.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.accelerator import Accelerator
from backpoint_fusefs.boot.disk_places import disks_of_point
from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.hardware import DiskBus, Hardware, Nic, hardware_of
from backpoint_fusefs.boot.host_limits import Host, fitted
from backpoint_fusefs.boot.machine import Display, Forward, Machine, MachinePlan, Network
from backpoint_fusefs.boot.machine_json import FILE_NAME, places_of_description
from backpoint_fusefs.boot.session_mount import SessionMount
from backpoint_fusefs.boot.vmx_text import VMX_SIZE_MAX
from backpoint_fusefs.live.errors import NoSuchSession, SessionFrozen
from backpoint_fusefs.live.session_home import SessionHome, SessionState
from backpoint_repo.catalog import PointSummary
from backpoint_repo.errors import BackpointError
from backpoint_repo.repository import Repository

OWNER: Final = "boot"
"""Of sessions that are discarded when the boot is over."""
_LEFT_BEHIND_S: Final = 600.0
"""A session of a boot that nobody has after so long is of one that died. Younger ones may be about
to be mounted."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class BootTerms:
    """How a point shall run; what is None is as its .vmx says. memory: MiB. card: the first network
    card's MAC where the .vmx has none. See `MachinePlan`."""

    network: Network = "none"
    isolated: bool = True
    forwards: Sequence[Forward] = ()
    switch: tuple[Path, Path] | None = None
    display: Display = "none"
    memory: int | None = None
    cores: int | None = None
    disk_bus: DiskBus | None = None
    accelerator: Accelerator | None = None
    extra: Sequence[str] = field(default_factory=tuple)
    card: str = ""


@dataclass(frozen=True)
class BootedPoint:
    """machine: runs. session: its name. folder: its files as the guest's disks are read from."""

    machine: Machine
    hardware: Hardware
    session: str
    folder: Path


@contextmanager
def boot_point(
    repository: Repository,
    home: SessionHome,
    point: PointSummary,
    terms: BootTerms,
    *,
    session: str | None = None,
    keep: bool = False,
    owner: str = OWNER,
    prepare: Callable[[Path], None] | None = None,
    on_console: Callable[[bytes], None] | None = None,
) -> Iterator[BootedPoint]:
    """Boot a point from a session of its own, discarded at the end unless `keep`.

    session: the name it gets; None: one is found. prepare: called with the session's folder before
    it is mounted. To be called while this process has one thread. Raises UsageError,
    MachineFailed, and what sessions, mounts and stores raise.
    """
    state = home.start(point, session, "" if keep else owner)
    try:
        if prepare is not None:
            prepare(state.folder)
        with boot_session(repository, home, state.name, terms, on_console) as booted:
            yield booted
    finally:
        if not keep:
            home.discard(state.name)


@contextmanager
def boot_session(
    repository: Repository,
    home: SessionHome,
    session: str,
    terms: BootTerms,
    on_console: Callable[[bytes], None] | None = None,
) -> Iterator[BootedPoint]:
    """Boot from a session that is there and stays. Raises as `boot_point`, and NoSuchSession."""
    find_session(home, session)
    with SessionMount(repository, home) as mount:
        booted = start_in_mount(repository, home, mount, session, terms, on_console)
        with booted.machine:
            yield booted


def start_in_mount(
    repository: Repository,
    home: SessionHome,
    mount: SessionMount,
    session: str,
    terms: BootTerms,
    on_console: Callable[[bytes], None] | None = None,
) -> BootedPoint:
    """One of several machines of a mount; ending it is the caller's affair. Raises as above."""
    state = find_session(home, session)
    assert state.record is not None
    folder = mount.folder(session)
    hardware = read_hardware(repository, state.record.point_id, folder)
    disks = [_plain(folder / f"disk{disk.number}-flat.vmdk") for disk in hardware.disks]
    if terms.cores is not None:
        hardware = dataclasses.replace(hardware, cores=terms.cores, cores_per_socket=1)
    hardware = _with_card(fitted(hardware, Host.here(), terms.memory), terms.card)
    scratch = mount.scratch / session
    scratch.mkdir(exist_ok=True)
    plan = MachinePlan(
        hardware,
        disks,
        scratch,
        state.record.vm,
        terms.network,
        terms.isolated,
        terms.forwards,
        terms.switch,
        terms.display,
        terms.memory,
        terms.disk_bus,
        terms.accelerator,
        terms.extra,
    )
    return BootedPoint(Machine(plan, on_console), hardware, session, folder)


def _plain(disk: Path) -> Path:
    """Clients of an export write to a session's folder: a link of theirs leads out of it, and a
    guest would get a disk of this machine. Raises MachineFailed."""
    try:
        found = disk.lstat()
    except OSError as error:
        raise MachineFailed(
            f"{disk.name} of the session cannot be used: {error.strerror}"
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise MachineFailed(f"{disk.name} of the session is no disk: it has been replaced")
    return disk


def _with_card(hardware: Hardware, address: str) -> Hardware:
    first, *others = hardware.nics or (Nic("vmxnet3"),)
    if not address or first.address:
        return hardware
    return dataclasses.replace(hardware, nics=(Nic(first.model, address), *others))


def find_session(home: SessionHome, name: str) -> SessionState:
    """One that can be used, as far as can be told. Raises NoSuchSession, SessionFrozen,
    MachineFailed."""
    found = next((state for state in home.list() if state.name == name), None)
    if found is None:
        raise NoSuchSession(f"there is no session {name!r}; `backpoint live list` shows them")
    if found.record is None:
        raise MachineFailed(f"the session {name} cannot be used: {found.problem}")
    if found.record.frozen:
        raise SessionFrozen(
            f"the session {name} is frozen, and a machine writes: `backpoint live freeze "
            f"--thaw {name}` lets it"
        )
    return found


def read_hardware(repository: Repository, point_id: str, folder: Path) -> Hardware:
    """What the session's .vmx says, or the agent's machine.json beside it. point_id: hex, of the
    point that the session stands on, which knows where its disks were."""
    point = repository.point(bytes.fromhex(point_id))
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(".vmx"))
    vmx = _content(folder / names[0], VMX_SIZE_MAX) if names else None
    description = _content(folder / FILE_NAME, 4 * VMX_SIZE_MAX)
    places = {} if description is None else places_of_description(description)
    hardware = hardware_of(vmx, disks_of_point(point, places), description)
    if not hardware.disks:
        raise MachineFailed(f"this point of {point.vm} has no disks to boot from")
    return hardware


def discard_left_behind(home: SessionHome, tell: Tell, now: float | None = None) -> None:
    """Sessions of boots that died. now: seconds since 1970."""
    moment = time.time() if now is None else now
    for state in home.list():
        record = state.record
        if record is None or record.owner != OWNER or state.in_use:
            continue
        if moment - record.created > _LEFT_BEHIND_S:
            try:
                home.discard(state.name)
            except BackpointError as error:
                tell(f"the session {state.name}, left by a boot that died, stays: {error}")
            else:
                tell(f"the session {state.name}, left by a boot that died, is discarded")


def _content(path: Path, size_max: int) -> bytes | None:
    """None where it is no file. One byte more than allowed, so that it is seen to be too long."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return file.read(size_max + 1)
