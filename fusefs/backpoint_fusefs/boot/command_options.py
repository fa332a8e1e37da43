"""The options of `backpoint boot`, and what they mean for a machine.

Decides which of them go together. Those of --vcenter come with the agent, from the module of the
entry-point group `backpoint.boot` that is called `vcenter`.
"""

from __future__ import annotations

import argparse
import socket
from importlib.metadata import entry_points
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

from backpoint_fusefs.commands.live_commands.opening import add_live_option

if TYPE_CHECKING:
    from backpoint_fusefs.boot.booted_point import BootTerms
    from backpoint_fusefs.boot.machine_plan import Forward

_GROUP: Final = "backpoint.boot"
_VCENTER: Final = "vcenter"
_BUSES: Final = ("pvscsi", "lsisas1068", "sata", "ide", "nvme")
_CORES_MAX: Final = 255
_OF_VCENTER: Final = {
    "name": "--name",
    "vcenter_name": "--in",
    "host": "--host",
    "folder": "--folder",
    "pool": "--pool",
    "keep_uuid": "--keep-uuid",
    "no_power_on": "--no-power-on",
}
"""Where they are kept, and what they are called. All but the first come with the agent."""


def add_boot_options(parser: argparse.ArgumentParser) -> None:
    """All but the point, and where it runs."""
    _add_session(parser)
    _add_hardware(parser)
    _add_watching(parser)
    _add_vcenter(parser)


def vcenter_module() -> Any:
    """With `add_arguments(group)` and `run(args)`; None where the agent is not installed."""
    found = list(entry_points(group=_GROUP, name=_VCENTER))
    return found[0].load() if found else None


def refuse_vcenter_options(args: argparse.Namespace) -> None:
    """A machine here would be none that the user has in mind. Raises UsageError."""
    from backpoint_repo.errors import UsageError

    for kept, option in _OF_VCENTER.items():
        if getattr(args, kept, None):
            raise UsageError(f"{option} goes with --vcenter: say that too, or leave it out")


def terms_of(args: argparse.Namespace) -> BootTerms:
    """Raises UsageError."""
    from backpoint_fusefs.boot.booted_point import BootTerms
    from backpoint_fusefs.boot.hardware import MEMORY_MIN
    from backpoint_repo.errors import UsageError
    from backpoint_repo.sizes import parse_size

    memory = None if args.memory is None else parse_size(args.memory) >> 20
    if memory is not None and memory < MEMORY_MIN:
        raise UsageError(f"--memory must be at least {MEMORY_MIN} MiB")
    if args.cores is not None and not 1 <= args.cores <= _CORES_MAX:
        raise UsageError(f"--cores is 1 to {_CORES_MAX}")
    if args.timeout is not None and not args.timeout > 0:
        raise UsageError("--timeout is a number of seconds above 0")
    if args.console and args.json:
        raise UsageError("--console and --json both need stdout: give one of them")
    if args.until is not None and not args.until:
        raise UsageError("--until is empty: say what the console shall say")
    forwards = tuple(_forward(text) for text in args.forward)
    _check_ports([forward.host_port for forward in forwards])
    if args.network == "none" and (forwards or args.isolated):
        raise UsageError("--network none has no cable: leave it out, or --isolated and --forward")
    wanted = bool(args.network == "user" or args.isolated or forwards)
    return BootTerms(
        "user" if wanted else "none",
        args.isolated or args.network != "user",
        forwards,
        display="vnc" if args.vnc else "none",
        memory=memory,
        cores=args.cores,
        disk_bus=args.disk_bus,
    )


def _forward(text: str) -> Forward:
    from backpoint_fusefs.boot.machine_plan import Forward
    from backpoint_repo.errors import UsageError

    host, _, rest = text.partition(":")
    address, _, guest = rest.rpartition(":")
    try:
        IPv4Address(address or "0.0.0.0")
        ports = [int(port) for port in (host, guest)]
    except ValueError:
        ports = [0]
    if not all(0 < port < 65536 for port in ports):
        raise UsageError(f"--forward {text!r} is not PORT:GUEST-PORT or PORT:ADDRESS:GUEST-PORT")
    return Forward(ports[0], ports[1], address)


def _check_ports(ports: list[int]) -> None:
    """Before a guest is begun that could not be reached. Raises UsageError."""
    from backpoint_repo.errors import UsageError

    for port in ports:
        if ports.count(port) > 1:
            raise UsageError(f"--forward names port {port} of this machine twice")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                probe.listen(1)
            except OSError as error:
                raise UsageError(
                    f"--forward: port {port} of 127.0.0.1 cannot be had ({error.strerror}); choose "
                    "another"
                ) from error


def _add_session(parser: argparse.ArgumentParser) -> None:
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--session",
        metavar="SESSION",
        help="run from this session, which stays; begun from VM@POINT where it is not there yet",
    )
    kept.add_argument("--keep", action="store_true", help="keep what was written, as a session")
    add_live_option(parser)


def _add_hardware(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", metavar="SIZE", help="in place of what the VM had")
    parser.add_argument("--cores", metavar="N", type=int, help="in place of what the VM had")
    parser.add_argument(
        "--disk-bus",
        choices=_BUSES,
        help="attach all disks there, for guests that have no driver for what is chosen",
    )
    parser.add_argument(
        "--network",
        choices=("none", "user"),
        help="none: no cable (default); user: out through this machine, not in",
    )
    parser.add_argument(
        "--isolated",
        action="store_true",
        help="a network that leads nowhere; with --vcenter its networks are disconnected",
    )
    parser.add_argument(
        "--forward",
        metavar="PORT:[ADDRESS:]GUEST-PORT",
        action="append",
        default=[],
        help="reach a port of the guest at 127.0.0.1:PORT, isolated or not; ADDRESS: where the "
        "guest has a fixed one; repeatable",
    )


def _add_watching(parser: argparse.ArgumentParser) -> None:
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--vnc", action="store_true", help="show its screen by VNC on 127.0.0.1")
    shown.add_argument(
        "--console", action="store_true", help="its serial console here (default on a terminal)"
    )
    parser.add_argument("--until", metavar="TEXT", help="end once its console says this")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, help="end after so long")


def _add_vcenter(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --vcenter")
    group.add_argument("--name", metavar="NAME", help="what the VM is called there")
    if (module := vcenter_module()) is not None:
        module.add_arguments(group)
