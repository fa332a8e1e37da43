"""`backpoint prove`: try whether restore points can be used, and keep the result with them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from backpoint_fusefs.commands.live_commands.opening import LIVE_ENVIRONMENT, add_live_option
from backpoint_repo.command_parser import OPENS_REPOSITORY, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backpoint_fusefs.prove.boot_trial import BootTrial
    from backpoint_fusefs.prove.proving import ProveTools
    from backpoint_repo.catalog import PointSummary
    from backpoint_repo.proof import Level, Proof
    from backpoint_repo.repository import Repository

HELP: Final = "try whether restore points can be used, and keep the result with them"
FAILED: Final = 1
_OF_BOOT: Final = ("sign_text", "sign_port", "sign_address", "memory")

_DESCRIPTION: Final = """
Try a restore point level by level, and store what came of it beside the point, where points, show
and every mount tell it. Levels build on one another; the first that fails ends the trial:

  structure  every map node opens, and every chunk lies in a pack that is there
  data       every chunk of the point is read, decoded and held against its id
  trees      every volume of the guest lists, and --files of each, drawn by lot, are read
  boot       the machine is booted by QEMU in a session that is thrown away, without any network,
             until it gives a sign of life; a screenshot is kept, for the owner's key only

A sign of life is the text that --sign-text looks for on the serial console, or a port of the guest
that --sign-port names and that answers. Where neither is given it is a login prompt on the console
or a screen that has come to rest, whichever is first: a weak sign, and the proof says which it was.

Without VM the newest point of every VM is tried; --random N tries N of them, those whose VM was
proved longest ago first: for a timer that runs every night. Where several are tried, a failure is
told and the others are tried all the same. A level that cannot even be tried is no failure of the
point: the proof ends below it, and the reason is told.
"""
_EXAMPLES: Final = """
backpoint prove web01
backpoint prove web01@2026-11-20 --level boot --sign-text 'login:'
backpoint prove --random 5 --level boot
"""
_EXIT_CODES: Final = """\
exit codes:
  0 all that was tried is good   1 something failed   2 wrong use
  4 the repository cannot be read or the proof not be stored   5 a key is wrong or not enough
  8 the boot could not be tried   130 interrupted: nothing is stored of the point that was tried
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    environment = OPENS_REPOSITORY + LIVE_ENVIRONMENT
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=environment, exit_codes=_EXIT_CODES
    )
    parser.add_argument("point", metavar="VM[@POINT]", nargs="?", help="default: every VM's newest")
    parser.add_argument(
        "--level",
        choices=("structure", "data", "trees", "boot"),
        default="trees",
        help="how far to go (default: %(default)s)",
    )
    parser.add_argument("--random", metavar="N", type=_count, help="try N points, see above")
    parser.add_argument(
        "--files",
        metavar="N",
        type=_count,
        default=20,
        help="files read of each volume (default: %(default)s)",
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would be tried")
    boot = parser.add_argument_group("boot")
    boot.add_argument("--sign-text", metavar="REGEX", help="a text on the guest's serial console")
    boot.add_argument("--sign-port", metavar="PORT", type=_count, help="a TCP port of the guest")
    boot.add_argument(
        "--sign-address",
        metavar="ADDRESS",
        help="where the guest has that port, if it has a fixed address (default: it asks by DHCP)",
    )
    boot.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_count,
        default=600,
        help="for a sign of life (default: %(default)s)",
    )
    boot.add_argument("--memory", metavar="SIZE", help="of the machine (default: what the VM had)")
    add_live_option(parser)


def run(args: argparse.Namespace) -> int:
    """0 good, 1 where a level failed. Raises UsageError, KeyFault and what a store raises."""
    from backpoint_repo.errors import UsageError
    from backpoint_repo.opening import open_from, require_owner
    from backpoint_repo.proof import Level

    if args.point and args.random:
        raise UsageError("--random draws the points itself: give no VM with it")
    level = Level(args.level)
    for option in _OF_BOOT:
        if level is not Level.BOOT and getattr(args, option) is not None:
            raise UsageError(f"--{option.replace('_', '-')} is for --level boot")
    repository = open_from(args)
    if level is not Level.STRUCTURE:
        require_owner(repository, "reading a point")
    chosen = _chosen(args, repository)
    if args.dry_run:
        return _say_what(args, chosen)
    if level is Level.BOOT:
        _boot_trial(args, repository)  # before the night is spent on reading
    return _prove_all(args, repository, chosen, level)


def _chosen(args: argparse.Namespace, repository: Repository) -> Sequence[PointSummary]:
    import random

    from backpoint_fusefs.prove.drill import plan_drill
    from backpoint_repo.errors import UsageError
    from backpoint_repo.point_proof import newest_proofs
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.terminal import warn

    points = repository.catalog.refresh()
    for broken in repository.catalog.broken.values():
        warn(broken)
    if args.point:
        return [select_point(points, args.point)]
    if not points:
        raise UsageError("there are no points yet")
    proved_at: dict[bytes, float] = {}
    if args.random:
        proved_at = {key: one.at for key, one in newest_proofs(repository.sealed).items()}
    count = args.random or len(points)
    return plan_drill(points, proved_at, count, random.Random())


def _prove_all(
    args: argparse.Namespace,
    repository: Repository,
    chosen: Sequence[PointSummary],
    level: Level,
) -> int:
    """One point's trouble with the store or its boot is told, and the others are tried."""
    from backpoint_fusefs.prove.proving import PointGone
    from backpoint_repo.errors import BackpointError
    from backpoint_repo.terminal import say

    code = 0
    for summary in chosen:
        try:
            ok = _prove(args, repository, summary, level)
        except BackpointError as error:
            if len(chosen) == 1:
                raise
            say(f"{_name(summary)}: {error}")
            if not isinstance(error, PointGone):
                code = code or error.exit_code
        else:
            code = code if ok else FAILED
    return code


def _prove(
    args: argparse.Namespace, repository: Repository, summary: PointSummary, level: Level
) -> bool:
    from backpoint_fusefs.prove.proving import keep_proof, prove_point
    from backpoint_fusefs.prove.trial_progress import TrialProgress
    from backpoint_repo.errors import RepositoryError

    with TrialProgress(_name(summary), summary.size, as_json=args.json) as shown:
        tools = _tools(args, repository, level, shown.advance)
        proved = prove_point(tools, summary, level, shown.entering)
    try:
        proof = keep_proof(repository, proved)
    except RepositoryError as error:
        _report(args, summary, proved.proof, stored=False)
        raise RepositoryError(f"the proof could not be stored: {error}") from error
    _report(args, summary, proof, stored=True)
    if proved.stopped is not None:
        raise proved.stopped
    return proof.ok


def _tools(
    args: argparse.Namespace,
    repository: Repository,
    level: Level,
    advance: Callable[[int], None],
) -> ProveTools:
    import random

    from backpoint_fusefs.prove.proving import ProveTools
    from backpoint_repo.point_structure import StructureProof
    from backpoint_repo.proof import Level

    boot = _boot_trial(args, repository) if level is Level.BOOT else None
    structure = StructureProof(repository)
    return ProveTools(repository, structure, args.files, random.Random(), advance, boot)


def _boot_trial(args: argparse.Namespace, repository: Repository) -> BootTrial:
    """Raises UsageError, MachineFailed."""
    from backpoint_fusefs.boot.booted_point import BootTerms, discard_left_behind
    from backpoint_fusefs.boot.hardware import MEMORY_MIN
    from backpoint_fusefs.boot.qemu_process import qemu_program
    from backpoint_fusefs.live.session_home import SessionHome, default_home
    from backpoint_fusefs.prove.boot_trial import BootTrial
    from backpoint_fusefs.prove.signs_wanted import signs_wanted
    from backpoint_repo.errors import UsageError
    from backpoint_repo.sizes import parse_size
    from backpoint_repo.terminal import say

    memory = None if args.memory is None else parse_size(args.memory) >> 20
    if memory is not None and memory < MEMORY_MIN:
        raise UsageError(f"--memory must be at least {MEMORY_MIN} MiB")
    signs = signs_wanted(args.sign_text, args.sign_port, args.sign_address)
    qemu_program()
    terms = BootTerms("user" if signs.ports else "none", forwards=signs.ports, memory=memory)
    home = SessionHome(args.live or default_home(repository), repository)
    discard_left_behind(home, say)
    return BootTrial(repository, home, terms, signs, args.timeout)


def _report(args: argparse.Namespace, summary: PointSummary, proof: Proof, *, stored: bool) -> None:
    from backpoint_repo.proof import proof_record
    from backpoint_repo.sizes import format_duration
    from backpoint_repo.terminal import print_line, print_record

    if args.json:
        record = {"type": "proof", "vm": summary.vm, **proof_record(proof), "stored": stored}
        print_record(record)
        return
    print_line(f"{_name(summary)}: {proof.words} in {format_duration(proof.duration_s)}")
    for step in proof.steps:
        verdict = "ok" if step.ok else "FAILED"
        took = format_duration(step.duration_s)
        print_line(f"  {step.level.value:<10}{verdict:<8}{took:>8}  {step.detail}")
        for note in step.notes:
            print_line(f"  {'':<26}  note: {note}")


def _say_what(args: argparse.Namespace, chosen: Sequence[PointSummary]) -> int:
    from backpoint_repo.terminal import print_line, print_record

    for point in chosen:
        if args.json:
            print_record({"type": "would-prove", "vm": point.vm, "point": point.point_id.hex()})
        else:
            print_line(f"would prove {_name(point)} up to {args.level}")
    return 0


def _name(summary: PointSummary) -> str:
    from backpoint_repo.point_selector import format_time

    return f"{summary.vm}@{format_time(summary.time)}"


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
