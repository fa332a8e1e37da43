"""`backpoint show`: all that is recorded of one restore point."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Final

from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from backpoint_repo.point import Point
    from backpoint_repo.point_hold import Hold
    from backpoint_repo.point_note import PointNote
    from backpoint_repo.point_proof import History
    from backpoint_repo.repository import Repository

HELP: Final = "describe one restore point"
SELECTOR: Final = "a point: VM@latest, VM@TIME-PREFIX, VM@INDEX (-1 newest) or VM@ID-PREFIX"

_DESCRIPTION: Final = """
Describe one restore point: its disks with size and source, its files, what it cost, its warnings,
who holds it, and what became of every attempt to prove it, newest first.
POINT may be `latest`, the beginning of a time (2026-11-20), an index (-1 is the newest, 0 the
oldest) or the beginning of an id; an ambiguous one is refused with the candidates.
"""
_EXAMPLES: Final = """
backpoint show web01@latest
backpoint show web01@2026-11-20 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(parser, _DESCRIPTION, examples=_EXAMPLES)
    parser.add_argument("point", metavar="VM@POINT", help=SELECTOR)


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where the selector names no point or several, and what a store raises."""
    from backpoint_repo.opening import open_from
    from backpoint_repo.point_note import AFTERMATH, read_note
    from backpoint_repo.point_proof import read_proofs
    from backpoint_repo.point_record import full_record
    from backpoint_repo.point_selector import select_point
    from backpoint_repo.terminal import print_fields, print_record, warn

    repository = open_from(args)
    points = repository.catalog.refresh()
    for broken in repository.catalog.broken.values():
        warn(broken)
    point = repository.point(select_point(points, args.point).point_id)
    note = read_note(repository.sealed, point.point_id, AFTERMATH)
    proofs = read_proofs(repository.sealed, point.point_id)
    for unreadable in proofs.unreadable:
        warn(f"a proof cannot be read: {unreadable.why}")
    holds = _holds(repository, point)
    if args.json:
        print_record(full_record(point, [note] if note else [], proofs, holds))
    else:
        told = (_fields(point), _held(holds), _proved(proofs), _made_by_agent(point, note))
        print_fields(chain.from_iterable(told))
    return 0


def _fields(point: Point) -> Iterator[tuple[str, str]]:
    from backpoint_repo.point_record import origin_record, point_name
    from backpoint_repo.point_selector import format_time
    from backpoint_repo.sizes import format_duration, format_size

    yield "point", point_name(point)
    yield "id", point.point_id.hex()
    yield "vm", point.vm
    yield "time", format_time(point.time)
    yield "created", format_time(point.created)
    yield "label", point.label or "-"
    yield "consistency", point.consistency
    for number, disk in enumerate(point.disks):
        sizes = f"{format_size(disk.size)} ({disk.size} bytes), {format_size(disk.allocated)} used"
        yield f"disk {number}", f"{disk.key}: {sizes}, from {disk.source}"
    for file in point.files:
        yield "file", f"{file.name} ({format_size(file.size)})"
    yield "read", format_size(point.traffic.read)
    yield "new", format_size(point.traffic.new)
    yield "stored", format_size(point.traffic.stored)
    yield "duration", format_duration(point.duration_s)
    yield "parent", point.parent.hex() if point.parent else "none"
    yield "generation", str(point.generation)
    if origin := origin_record(point.origin):
        yield "copy of", f"{origin['point']} in repository {origin['repository']}"
    yield "made by", point.tool
    for warning in point.warnings:
        yield "warning", warning


def _holds(repository: Repository, point: Point) -> list[Hold]:
    from backpoint_repo.errors import RepositoryError
    from backpoint_repo.point_hold import read_holds
    from backpoint_repo.terminal import warn

    try:
        every = read_holds(repository.sealed)
    except RepositoryError as error:
        warn(f"holds cannot be read: {error}")
        return []
    now = repository.clock()
    return [hold for hold in every if hold.point_id == point.point_id and hold.holds_at(now)]


def _held(holds: list[Hold]) -> Iterator[tuple[str, str]]:
    from backpoint_repo.point_record import until_text

    for hold in holds:
        yield "held", f"{until_text(hold)}{f': {hold.why}' if hold.why else ''}"


def _proved(history: History) -> Iterator[tuple[str, str]]:
    from backpoint_repo.sizes import format_duration

    for proof in history.proofs:
        yield "proof", f"{proof.words} in {format_duration(proof.duration_s)}, by {proof.tool}"
        for step in proof.steps:
            told = "ok" if step.ok else "FAILED"
            detail = f": {step.detail}" if step.detail else ""
            yield f"  {step.level.value}", f"{told}{detail}"
            for note in step.notes:
                yield "  note", note
        if proof.sign_s is not None:
            how = f" ({proof.accelerator})" if proof.accelerator else ""
            yield "  sign of life", f"{proof.sign} after {format_duration(proof.sign_s)}{how}"
        for warning in proof.warnings:
            yield "  warning", warning


def _made_by_agent(point: Point, note: PointNote | None) -> Iterator[tuple[str, str]]:
    """What a point's maker recorded, and what it learned afterwards."""
    yield from _facts("capture", point.capture)
    if note is not None:
        yield from _facts("afterwards", note.facts)


def _facts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Each plain fact under the names that lead to it; nothing of what is empty."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _facts(f"{name} {key}", item)
    elif isinstance(value, list):
        for item in value:
            yield from _facts(name, item)
    elif value is not None and value != "":
        yield name, str(value)
