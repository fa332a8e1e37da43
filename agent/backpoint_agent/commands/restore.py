"""`backpoint agent restore`: a point as a new VM, or over one that exists."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from backpoint_agent.commands.environment import CONFIGURATION_AND_KEY
from backpoint_repo.command_parser import describe
from backpoint_repo.commands.show import SELECTOR

if TYPE_CHECKING:
    from backpoint_agent.restoring.machine_plan import NetworkRule

HELP: Final = "make a VM of a restore point, or write one over an existing VM"

_DESCRIPTION: Final = """
Make a new VM of a restore point: its configuration, devices, networks and disks. Where nothing else
is said it goes where the original was, and its network cards stay disconnected while the original
exists. Or write the point's disks over an existing VM, which must be powered off and without
snapshots: only blocks that differ are written. Either way the VM comes back with changed block
tracking off, so that its next backup reads everything.

Needs the owner's passphrase or recovery key: an agent's credential cannot read backups.
"""
_EXAMPLES: Final = """
backpoint agent restore -c backpoint.toml web01@latest --to new --name web01-check
backpoint agent restore -c backpoint.toml web01@2026-11-20 --to new --network "VM Network=Lab"
backpoint agent restore -c backpoint.toml web01@latest --to existing --dry-run
"""
_WAYS: Final = ("vddk", "datastore", "https", "import")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES, environment=CONFIGURATION_AND_KEY)
    parser.add_argument("point", metavar="VM@POINT", help=SELECTOR)
    parser.add_argument(
        "--to", choices=("new", "existing"), required=True, help="a new VM, or over an existing one"
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="of the new VM; or which existing VM (name, path or id) instead of the original",
    )
    parser.add_argument("--vcenter", metavar="NAME", help="as the configuration calls it")
    place = parser.add_argument_group("where a new VM goes (a name, or a path or its end)")
    place.add_argument("--host", metavar="HOST", help="default: the original's")
    place.add_argument("--datastore", metavar="DATASTORE", help="for all disks and files")
    place.add_argument("--folder", metavar="FOLDER", help="default: the original's")
    place.add_argument("--pool", metavar="POOL", help="resource pool; default: the original's")
    new = parser.add_argument_group("what a new VM is like")
    new.add_argument(
        "--network",
        metavar="keep|disconnected|OLD=NEW",
        action="append",
        default=[],
        help="connect cards as they were, or none, or those on OLD to NEW; may be repeated",
    )
    new.add_argument(
        "--keep-uuid", action="store_true", help="the original's BIOS uuid (default: a new one)"
    )
    parser.add_argument(
        "--disks", metavar="DISK", nargs="+", help="only these, by slot or key (see show)"
    )
    parser.add_argument(
        "--transport", choices=_WAYS, help="how disks are written; default: what works"
    )
    parser.add_argument("--verify", action="store_true", help="read the disks again and compare")
    parser.add_argument("--power-on", action="store_true", help="start the VM when it is whole")
    parser.add_argument("--yes", action="store_true", help="write over the VM without asking")
    parser.add_argument("--dry-run", action="store_true", help="change nothing, say what would be")


def run(args: argparse.Namespace) -> int:
    """Raises ConfigMistakes, UsageError, OwnerKeyNeeded, VSphereError, TargetError, and what
    reading the repository raises."""
    from backpoint_agent.commands.opening import read_settings
    from backpoint_agent.ledger import Ledger
    from backpoint_agent.restoring.machine_command import RestoreRequest, restore_machine
    from backpoint_agent.restoring.stored_machine import read_stored_machine
    from backpoint_agent.state_folder import make_state_folder
    from backpoint_agent.stopping import Stop
    from backpoint_repo.opening import require_owner
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.reading import reading
    from backpoint_repo.terminal import warn

    networks = parse_networks(args.network)
    _refuse_options_of_the_other(args)
    settings = read_settings(args)
    repository = _open_as_owner(settings)
    require_owner(repository, "restoring a VM")
    selected = select_point(repository.catalog.refresh(), args.point)
    point = repository.point(selected.point_id)
    stored = read_stored_machine(repository, point)
    stop = Stop()
    with ExitStack() as opened:
        opened.enter_context(reading(repository, point, warn))
        vcenter = _vcenter(settings, args.vcenter, stored.vcenter, stop)
        opened.callback(vcenter.close)
        state = make_state_folder(settings.state)
        ledger = opened.enter_context(Ledger(state.ledger))
        request = RestoreRequest(
            stored, settings, vcenter, ledger, state.locks, stop, networks, args
        )
        return restore_machine(request)


def parse_networks(words: list[str]) -> NetworkRule:
    """Raises UsageError for a word that is none of the three."""
    from backpoint_agent.restoring.machine_plan import NetworkRule, Rest
    from backpoint_repo.errors import UsageError

    rest: Rest | None = None
    mapped: dict[str, str] = {}
    for word in words:
        old, sign, new = word.partition("=")
        if sign and old and new:
            mapped[old] = new
        elif word in ("keep", "disconnected") and rest in (None, word):
            rest = "keep" if word == "keep" else "disconnected"
        else:
            raise UsageError(f"--network {word}: say keep, disconnected or OLD=NEW")
    return NetworkRule(mapped, rest)


def _refuse_options_of_the_other(args: argparse.Namespace) -> None:
    from backpoint_repo.errors import UsageError

    if args.to == "new":
        return
    for option in ("host", "datastore", "folder", "pool", "network", "keep_uuid"):
        if getattr(args, option):
            name = option.replace("_", "-")
            raise UsageError(f"--{name} is for --to new: an existing VM stays where and as it is")


def _open_as_owner(settings: Any) -> Any:
    """With the owner's credential where there is one: the configuration's, or the environment's."""
    import os

    from backpoint_agent.commands.opening import open_repository
    from backpoint_repo.opening import owner_source

    if settings.repository.passphrase is None and owner_source(os.environ).chosen():
        # An agent's credential is for backups; a passphrase in the environment is meant for this.
        changed = settings.repository.model_copy(update={"credential": None})
        settings = settings.model_copy(update={"repository": changed})
    return open_repository(settings)


def _vcenter(settings: Any, wanted: str | None, uuid: str, stop: Any) -> Any:
    """The one the user names, else the only one, else the one the point was made in."""
    from backpoint_agent.commands.opening import connect
    from backpoint_repo.errors import UsageError

    names = list(settings.vcenters)
    if wanted is not None:
        if wanted not in names:
            raise UsageError(f"no vCenter is called {wanted!r}; there are: {', '.join(names)}")
        return connect(settings, wanted, stop)
    if len(names) == 1:
        return connect(settings, names[0], stop)
    for name in names:
        vcenter = connect(settings, name, stop)
        if vcenter.uuid == uuid:
            return vcenter
        vcenter.close()
    raise UsageError(f"which vCenter? Say --vcenter; there are: {', '.join(names)}")
