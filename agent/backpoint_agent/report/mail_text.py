"""What the mail about a run says: what failed first, then what needs a look, then the rest. Pure.

Decides subject and text, both of bounded size. Names and messages come from strangers: nothing of
them can begin a line of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.running.outcome import MachineOutcome
from backpoint_repo.point_selector import format_time
from backpoint_repo.sizes import format_duration, format_size
from backpoint_repo.terminal import printable

LINES_MAX: Final = 2000
"""A longer text is cut: whatever matters stands above, and the record has it all."""

_LINE_MAX: Final = 1000
_SUBJECT_MAX: Final = 200


def mail_subject(record: RunRecord) -> str:
    """`Backpoint nightly: 3 of 4 VMs, 1 alarm`."""
    good = sum(outcome.good for outcome in record.outcomes)
    alarms = sum(len(outcome.alarms) for outcome in record.outcomes)
    parts = [f"{good} of {_count(len(record.outcomes), 'VM')}"]
    if alarms:
        parts.append(_count(alarms, "alarm"))
    if record.trouble:
        parts.append("trouble")
    return printable(f"Backpoint {record.job or 'run'}: {', '.join(parts)}")[:_SUBJECT_MAX]


def mail_body(record: RunRecord) -> str:
    """Plain text."""
    lines = [_cut(line) for line in _lines(record)]
    left_out = len(lines) - LINES_MAX
    if left_out > 0:
        lines[LINES_MAX:] = [f"... and {left_out} lines more; see the run's record"]
    return "\n".join(lines) + "\n"


def _lines(record: RunRecord) -> Iterator[str]:
    yield f"Job {record.job}, vCenter {record.vcenter}, run {record.number}"
    took = format_duration(max(0.0, record.ended - record.started))
    yield f"from {format_time(record.started)} to {format_time(record.ended)} ({took})"
    if record.trouble:
        yield from ("", f"TROUBLE: {record.trouble}")
    good = [outcome for outcome in record.outcomes if outcome.good]
    yield from _block("No new point", _failed_lines(record))
    alarms = [f"{outcome.vm}: {text}" for outcome in good for text in outcome.alarms]
    yield from _block("Alarms", iter(alarms))
    yield from _block("New points", map(_good_line, good))
    warnings = [f"{outcome.vm}: {text}" for outcome in good for text in outcome.warnings]
    yield from _block("Warnings", iter([*record.warnings, *warnings]))
    skipped = (f"{vm}: {reason}" for vm, reason in record.skipped)
    yield from _block("Left out by the job", skipped)
    removed = Counter(vm for vm, _ in record.removed)
    counts = (f"{vm}: {_count(number, 'point')}" for vm, number in sorted(removed.items()))
    yield from _block("Removed by the rules", counts)


def _failed_lines(record: RunRecord) -> Iterator[str]:
    for outcome in record.failed:
        yield f"{outcome.vm}: {outcome.status}: {outcome.error or 'no reason is known'}"
        for text in outcome.alarms:
            yield f"  ALARM: {text}"
        for text in outcome.warnings:
            yield f"  {text}"


def _good_line(outcome: MachineOutcome) -> str:
    at = format_time(outcome.point_time) if outcome.point_time is not None else "?"
    took = format_duration(max(0.0, outcome.ended - outcome.started))
    how = "/".join(dict.fromkeys(disk.how for disk in outcome.disks)) or "-"
    return (
        f"{outcome.vm}: {at}, {outcome.consistency or '-'}, {how} by {outcome.transport or '-'}, "
        f"{format_size(outcome.size)}, read {format_size(outcome.read)}, stored "
        f"{format_size(outcome.stored)}, {took}"
    )


def _block(heading: str, lines: Iterator[str]) -> Iterator[str]:
    lines = iter(lines)
    first = next(lines, None)
    if first is not None:
        yield from ("", f"{heading}:", f"  {first}")
        yield from (f"  {line}" for line in lines)


def _cut(line: str) -> str:
    shown = printable(line)
    return shown if len(shown) <= _LINE_MAX else shown[: _LINE_MAX - 3] + "..."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
