"""`backpoint boot --vcenter`: a point runs as a VM of a vCenter, from the backup."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.live_opening import add_config_option, tell_mistakes

if TYPE_CHECKING:
    from backpoint_agent.live.booting import Booted
    from backpoint_agent.vsphere.vcenter import VCenter

HELP: Final = "run it in a vCenter, from the backup over NFS"

_OF_QEMU: Final = (
    "session", "keep", "disk_bus", "network", "forward", "vnc", "console", "until", "timeout",
)  # fmt: skip


def add_arguments(parser: argparse._ActionsContainer) -> None:
    """What a boot in a vCenter takes beside what every boot takes: the point, `--isolated`,
    `--name`."""
    add_config_option(parser)
    parser.add_argument(
        "--in", dest="vcenter_name", metavar="NAME", help="which vCenter, where there are several"
    )
    parser.add_argument("--host", metavar="HOST", help="that mounts the export and runs the VM")
    parser.add_argument("--folder", metavar="FOLDER", help="default: the original's")
    parser.add_argument("--pool", metavar="POOL", help="resource pool; default: the original's")
    parser.add_argument(
        "--keep-uuid",
        action="store_true",
        help="in the original's place: its BIOS uuid and network addresses (default: new ones)",
    )
    parser.add_argument("--no-power-on", action="store_true", help="register the VM only")


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError, OwnerKeyNeeded, VSphereError, TargetError, and what
    reading the repository raises."""
    return tell_mistakes(_run, args)


def _run(args: argparse.Namespace) -> int:
    from backpoint_agent.commands.live_opening import opened_desk
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.live.boot_plan import BootWishes, plan_boot
    from backpoint_agent.live.booting import LiveBoot
    from backpoint_agent.live.export_place import find_export
    from backpoint_agent.live.live_place import PlaceWishes
    from backpoint_agent.live.repository_access import repository_access
    from backpoint_agent.settings.read import VARIABLE, settings_path
    from backpoint_repo.errors import UsageError
    from backpoint_repo.opening import require_owner
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.sizes import parse_size
    from backpoint_repo.terminal import say

    if not args.host:
        raise UsageError("which host is to run it? Say --host")
    _refuse_options_of_qemu(args)
    settings = read_settings(args)
    # Children find the [store] table where it was found here.
    known = {**os.environ, VARIABLE: str(settings_path(args.config, os.environ).absolute())}
    repository, access = repository_access(args.repo, settings.repository, known).open()
    require_owner(repository, "booting a point")
    selected = select_point(repository.catalog.refresh(), args.point)
    point = repository.point(selected.point_id)
    export = find_export(settings.live, access, args.live)
    wishes = BootWishes(
        PlaceWishes(args.host, args.folder, args.pool),
        args.name,
        args.isolated,
        args.keep_uuid,
        not args.no_power_on,
        None if args.memory is None else max(parse_size(args.memory) >> 20, 4),
        args.cores,
    )
    origin = point.capture.get("vcenter")
    uuid = origin if isinstance(origin, str) and len(settings.vcenters) > 1 else ""
    with opened_desk(settings, args.vcenter_name, uuid) as desk:
        means = desk.means
        plan, notes = plan_boot(means.vcenter, repository, point, export, settings.live, wishes)
        for note in notes:
            say(note)
        booted = LiveBoot(means, access, plan, say).run()
        _report(args, means.vcenter, booted)
    return 0


def _refuse_options_of_qemu(args: argparse.Namespace) -> None:
    from backpoint_repo.errors import UsageError

    for option in _OF_QEMU:
        if getattr(args, option, None):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for a machine here: leave it out with --vcenter")


def _report(args: argparse.Namespace, vcenter: VCenter, booted: Booted) -> None:
    from backpoint_repo.terminal import print_line, print_record, say

    machine, session = booted.machine, booted.session
    for note in booted.notes:
        say(f"{machine.name}: {note}")
    if args.json:
        print_record(
            {
                "type": "live-boot",
                "session": session,
                "vcenter": vcenter.name,
                "vm": machine.name,
                "moref": machine.moref,
                "host": machine.host,
                "datastore": booted.datastore,
                "power": machine.power,
                "notes": list(booted.notes),
            }
        )
        return
    state = "runs" if machine.power == "poweredOn" else f"is {machine.power}"
    print_line(f"{machine.name} {state} on {machine.host}, session {session}")
    say(f"`backpoint live migrate {session} -c FILE --datastore D` moves it to stay")
    say(f"`backpoint live end {session} -c FILE` ends it, and what it wrote goes")
