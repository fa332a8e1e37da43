"""The steps of `backpoint agent restore` once everything is open: plan, say, ask, do, report.

Decides what the user is told and asked before anything changes. The restores themselves are in
`to_new.py` and `to_existing.py`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backpoint_agent.errors import VSphereError
from backpoint_agent.inventory_names import unescape
from backpoint_agent.ledger import Ledger
from backpoint_agent.machine import Machine
from backpoint_agent.machine_lock import machine_lock
from backpoint_agent.report.restores import save_restore
from backpoint_agent.restoring.destination import Destination, PlaceChoices, plan_destination
from backpoint_agent.restoring.finding import choose_name, find_named, find_origin
from backpoint_agent.restoring.machine_plan import (
    MachineChoices,
    MachinePlan,
    NetworkRule,
    plan_machine,
)
from backpoint_agent.restoring.new_machine import Workshop
from backpoint_agent.restoring.over_plan import MatchedDisk, plan_over
from backpoint_agent.restoring.places import read_possible_places
from backpoint_agent.restoring.restore_report import (
    Report,
    new_report,
    over_report,
    plan_report,
)
from backpoint_agent.restoring.sides import plan_ways
from backpoint_agent.restoring.stored_machine import StoredMachine
from backpoint_agent.restoring.to_existing import ExistingJob, restore_over
from backpoint_agent.restoring.to_new import (
    NewMachineJob,
    power_on,
    restore_to_new,
)
from backpoint_agent.settings.model import Settings
from backpoint_agent.state_folder import make_state_folder
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.questions import QuestionWatch
from backpoint_agent.vsphere.vcenter import VCenter
from backpoint_repo.errors import BackpointError, UsageError
from backpoint_repo.progress import progress
from backpoint_repo.sizes import format_size
from backpoint_repo.terminal import print_line, print_record, say, warn


@dataclass(frozen=True)
class RestoreRequest:
    """What was opened for it, and what the user said (`args` as `commands.restore` defines it)."""

    stored: StoredMachine
    settings: Settings
    vcenter: VCenter
    ledger: Ledger
    locks: Path
    stop: Stop
    networks: NetworkRule
    args: argparse.Namespace

    @property
    def shop(self) -> Workshop:
        """What VMs are made with."""
        return Workshop(self.vcenter, self.ledger, self.settings.waits, self.stop)

    @property
    def disks(self) -> list[str] | None:
        """Keys in the point of the disks the user named by slot or key, None for all."""
        if self.args.disks is None:
            return None
        by_slot = {disk.place: f"disk-{disk.key}" for disk in self.stored.description.disks}
        return list(dict.fromkeys(by_slot.get(word, word) for word in self.args.disks))


class _Watcher:
    """Sentences on stderr, bytes to the progress bar."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.advance = advance

    def say(self, text: str) -> None:
        say(text)


def restore_machine(request: RestoreRequest) -> int:
    """Do what the request says; the exit code. Raises as `commands.restore.run`."""
    if request.args.to == "new":
        _to_new(request)
    else:
        _to_existing(request)
    return 0


def _to_new(request: RestoreRequest) -> None:
    started = time.monotonic()
    args, stored = request.args, request.stored
    plan, destination = _plan_new(request)
    ways = plan_ways(
        request.settings,
        args.transport,
        {name for key, name in destination.datastores.items() if key},
        new=True,
    )
    for note in plan.notes:
        say(note)
    if args.dry_run:
        _show(args, plan_report(stored, request.vcenter, plan, destination))
        return
    job = NewMachineJob(stored, plan, destination, args.verify)
    size = sum(disk.size for disk in plan.disks) * (2 if args.verify else 1)
    with progress(f"restoring {plan.name}", size, as_json=args.json) as advance:
        restored = restore_to_new(request.shop, request.settings, job, ways, _Watcher(advance))
    seconds = time.monotonic() - started
    report = new_report(stored, request.vcenter, plan, restored, seconds)
    _show(args, report)
    _remember(request, report)
    if args.power_on:
        _power_on(request, restored.machine)


def _plan_new(request: RestoreRequest) -> tuple[MachinePlan, Destination]:
    args, stored, vcenter = request.args, request.stored, request.vcenter
    origin = find_origin(vcenter, stored)
    keys = request.disks or list(stored.disks)
    # Thin disks take what is not zero; a disk sent over https takes all of its size.
    whole = args.transport == "https"
    needs = {
        key: (disk.size if whole else disk.allocated)
        for key, disk in stored.disks.items()
        if key in keys
    }
    choices = PlaceChoices(args.folder, args.pool, args.host, args.datastore)
    places = read_possible_places(vcenter)
    destination = plan_destination(places, stored.origin, choices, needs)
    name = choose_name(
        vcenter,
        destination,
        args.name,
        unescape(stored.description.name),
        exists=origin is not None,
    )
    # In another vCenter nobody here can see whether it still runs, with its addresses.
    exists = origin is not None or stored.vcenter != vcenter.uuid
    machine_choices = MachineChoices(name, exists, request.networks, args.keep_uuid, request.disks)
    sizes = {key: disk.size for key, disk in stored.disks.items()}
    plan = plan_machine(stored.description, sizes, destination.networks, machine_choices)
    return plan, destination


def _to_existing(request: RestoreRequest) -> None:
    started = time.monotonic()
    args, stored, vcenter = request.args, request.stored, request.vcenter
    machine = find_named(vcenter, args.name) if args.name else find_origin(vcenter, stored)
    if machine is None:
        raise UsageError(
            f"the VM that {stored.name} was made of is not in vCenter {vcenter.name} any more; "
            "say --to new, or --name for another VM"
        )
    matched = plan_over(stored, machine, request.disks)
    datastores = {found.disk.datastore for found in matched}
    ways = plan_ways(request.settings, args.transport, datastores, new=False)
    if not args.dry_run:
        _ask(args, machine, stored, matched)
    job = ExistingJob(stored, machine.moref, request.disks, args.dry_run, args.verify)
    size = sum(found.disk.size for found in matched)
    with (
        machine_lock(
            request.locks,
            machine.identity,
            machine.name,
            "restore",
            limit_s=request.settings.waits.machine_lock_s,
            stop=request.stop,
            on_wait=lambda holder: say(f"waiting for {holder}"),
        ),
        progress(f"restoring {machine.name}", size, as_json=args.json) as advance,
    ):
        restored = restore_over(request.shop, request.settings, job, ways, _Watcher(advance))
    seconds = time.monotonic() - started
    report = over_report(stored, vcenter, restored, seconds, dry_run=args.dry_run)
    _show(args, report)
    if not args.dry_run:
        _remember(request, report)
    if args.power_on and not args.dry_run:
        _power_on(request, restored.machine)


def _ask(
    args: argparse.Namespace,
    machine: Machine,
    stored: StoredMachine,
    matched: tuple[MatchedDisk, ...],
) -> None:
    """Raises UsageError without the user's word."""
    if args.yes:
        return
    disks = ", ".join(f"{found.disk.slot} ({format_size(found.disk.size)})" for found in matched)
    if not sys.stdin.isatty():
        raise UsageError(f"writing over {machine.name} needs your word: say --yes")
    say(f"the disks {disks} of {machine.name} become those of {stored.name}; what is on them goes")
    print("Write over them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was written")


def _power_on(request: RestoreRequest, machine: Machine) -> None:
    policies = [policy for job in request.settings.jobs.values() for policy in job.questions]
    watch = QuestionWatch(request.vcenter, machine.moref, policies, say)
    try:
        power_on(request.shop, machine.moref, machine.name, watch.look)
    except VSphereError as error:
        raise type(error)(f"{machine.name} is restored, but not running: {error}") from error
    say(f"{machine.name} is powered on")


def _remember(request: RestoreRequest, report: Report) -> None:
    """How fast it went, for `status`; the restore is done whether this can be written or not."""
    try:
        save_restore(make_state_folder(request.settings.state), report.record, time.time())
    except (BackpointError, OSError) as error:
        warn(f"how long the restore took is not remembered: {error}")


def _show(args: argparse.Namespace, report: Report) -> None:
    if args.json:
        print_record(report.record)
        return
    for line in report.lines:
        print_line(line)
