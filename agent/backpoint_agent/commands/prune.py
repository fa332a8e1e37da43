"""`backpoint agent prune`: remove what the jobs' rules do not keep, now."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING, Final

from backpoint_agent.commands.environment import CONFIGURATION_AND_KEY
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_agent.settings.model import Job, Settings
    from backpoint_repo.repository import Repository
    from backpoint_repo.retention.rules import Rules

HELP: Final = "remove the points that the jobs' rules do not keep"

_DESCRIPTION: Final = """
Remove points of the VMs that the jobs take now, by the jobs' [retention]; without JOB of all jobs
that have one. It is what a run does at its end with the VMs that it gave a point. Where several
jobs of a vCenter take a VM, what one of them keeps is kept, and all if one has no rules. What never
goes, and how rules count, is in `backpoint prune --help`.

Points of VMs that vCenter does not have any more, or no job takes, are left to `backpoint prune`.
Removing frees no space: `backpoint collect` does. Say --dry-run first.
"""
_EXAMPLES: Final = """
backpoint agent prune -c backpoint.toml --dry-run
backpoint agent prune -c backpoint.toml nightly --json
"""
_EXIT_CODES: Final = """\
exit codes:
  0 done   2 wrong use or configuration   4 the repository failed, or lets nobody delete
  5 a key or passphrase is wrong   7 vCenter failed   130 interrupted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser,
        _DESCRIPTION,
        examples=_EXAMPLES,
        environment=CONFIGURATION_AND_KEY,
        exit_codes=_EXIT_CODES,
    )
    parser.add_argument("jobs", metavar="JOB", nargs="*", help="only VMs that these jobs take")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError, KeyFault, VSphereError and what a repository raises."""
    from backpoint_agent.commands.opening import open_repository, read_settings
    from backpoint_repo.commands.prune import prune_and_tell
    from backpoint_repo.retention.prune import plan_prune

    settings = read_settings(args)
    jobs = jobs_with_rules(args.jobs, settings)
    repository = open_repository(settings)
    plan = plan_prune(repository, _rules(settings, jobs, repository))
    prune_and_tell(repository, plan, dry_run=args.dry_run, as_json=args.json)
    return 0


def jobs_with_rules(names: list[str], settings: Settings) -> list[Job]:
    """Of these names, or all of them. Raises UsageError where there is none."""
    from backpoint_repo.errors import UsageError

    known = ", ".join(settings.jobs) or "none"
    for name in names:
        if name not in settings.jobs:
            raise UsageError(f"there is no job {name!r}; the configuration has: {known}")
        if settings.jobs[name].retention is None:
            raise UsageError(f"the job {name} has no [retention]: it keeps every point")
    found = [job for job in settings.jobs.values() if job.retention is not None]
    if not found:
        raise UsageError("no job of the configuration has a [retention]: every point is kept")
    return [job for job in found if not names or job.name in names]


def _rules(settings: Settings, jobs: list[Job], repository: Repository) -> dict[str, list[Rules]]:
    from backpoint_agent.commands.opening import connect
    from backpoint_agent.jobs.retention import rules_by_name, rules_of_machines, taken_by
    from backpoint_agent.machine_names import MachineNames
    from backpoint_agent.stopping import Stop
    from backpoint_agent.vsphere.inventory import read_inventory

    names = MachineNames(repository)
    found: dict[str, list[Rules]] = {}
    for account in settings.vcenters.values():
        own = [job for job in jobs if settings.vcenter_of(job).name == account.name]
        if not own:
            continue
        with closing(connect(settings, account.name, Stop())) as vcenter:
            machines = read_inventory(vcenter, account).machines
        rules = rules_of_machines(settings, account, machines)
        wanted = [machine for job in own for machine in taken_by(job, machines)]
        # What only looks like the VM of another vCenter (a replica) has no say over its points.
        found |= rules_by_name(rules, wanted, names.own_name)
    return found
