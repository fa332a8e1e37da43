"""`backpoint agent config-check`: whether the configuration is right, and what it comes to.

Asks no vCenter and opens no repository: a file can be checked before anything is there.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from backpoint_agent.commands.environment import CONFIGURATION
from backpoint_repo.command_parser import describe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from backpoint_agent.settings.mistakes import Mistake
    from backpoint_agent.settings.model import Job, RetentionSettings, Settings

HELP: Final = "check the configuration, and show what it comes to"

_DESCRIPTION: Final = """
Read the configuration and name every mistake with its line and key. Where it is right: its
vCenters, its jobs, and when each runs next; then warnings of what it names on this machine and is
not there. Needs no network.
"""
_EXAMPLES: Final = """
backpoint agent config-check --print-example > backpoint.toml
backpoint agent config-check -c backpoint.toml
"""
_EXIT_CODES: Final = """\
exit codes:
  0 right, maybe with warnings   2 mistakes, or no such file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See --help."""
    describe(
        parser, _DESCRIPTION, examples=_EXAMPLES, environment=CONFIGURATION, exit_codes=_EXIT_CODES
    )
    parser.add_argument(
        "--print-example",
        action="store_true",
        help="print a configuration that explains every key, and read none",
    )


def run(args: argparse.Namespace) -> int:
    """Raises UsageError where there is no file to check."""
    import os

    from backpoint_agent.local_zone import now
    from backpoint_agent.settings.model import Settings
    from backpoint_agent.settings.read import examine_settings_file, settings_path
    from backpoint_agent.settings.surroundings import find_doubts

    if args.print_example:
        print(_example(), end="")
        return 0
    path = settings_path(args.config, os.environ)
    found = examine_settings_file(path)
    if isinstance(found, Settings):
        moment = now()
        _tell_right(found, path, moment, find_doubts(found, moment, os.environ), args.json)
        return 0
    return _tell_mistakes(found, path, args.json)


def _example() -> str:
    from importlib.resources import files

    return files("backpoint_agent").joinpath("backpoint.example.toml").read_text(encoding="utf-8")


def _tell_mistakes(mistakes: list[Mistake], path: Path, as_json: bool) -> int:
    from dataclasses import asdict

    from backpoint_agent.errors import ConfigMistakes
    from backpoint_repo.terminal import print_line, print_record

    if as_json:
        told = [asdict(mistake) for mistake in mistakes]
        print_record({"type": "config", "file": str(path), "ok": False, "mistakes": told})
    else:
        for mistake in mistakes:
            print_line(mistake.told(str(path)))
    return ConfigMistakes.exit_code


def _tell_right(
    settings: Settings, path: Path, now: datetime, doubts: list[str], as_json: bool
) -> None:
    from backpoint_repo.terminal import (
        Column,
        print_fields,
        print_line,
        print_record,
        print_table,
        warn,
    )

    if as_json:
        print_record(_record(settings, path, now, doubts))
        return
    print_line(f"ok: {path}")
    print_fields(_fields(settings))
    if settings.jobs:
        columns = ("job", "vCenter", "next run", "window", "transports", "keeps")
        rows = [_row(settings, job, now) for job in settings.jobs.values()]
        print_table([Column(name) for name in columns], rows)
    for doubt in doubts:
        warn(doubt)


def _fields(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "state", str(settings.state)
    yield "repository", settings.repository.path
    for vcenter in settings.vcenters.values():
        yield f"vCenter {vcenter.name}", f"{vcenter.address} as {vcenter.user}"
    if not settings.jobs:
        yield "jobs", "none"


def _row(settings: Settings, job: Job, now: datetime) -> list[str]:
    from backpoint_agent.schedule import next_start

    start = next_start(job, now)
    shown = f"{start.astimezone(now.tzinfo):%a %Y-%m-%d %H:%M}" if start else "by hand"
    window = f"{job.window.start} to {job.window.end}" if job.window else "always"
    transports = ", ".join(settings.transports_of(job))
    vcenter = settings.vcenter_of(job).name
    return [job.name, vcenter, shown, window, transports, _kept(job.retention)]


def _kept(retention: RetentionSettings | None) -> str:
    if retention is None:
        return "all points"
    kept = retention.model_dump(exclude_none=True)
    return ", ".join(f"{count} {key.removeprefix('keep_')}" for key, count in kept.items() if count)


def _record(settings: Settings, path: Path, now: datetime, doubts: list[str]) -> dict[str, Any]:
    return {
        "type": "config",
        "file": str(path),
        "ok": True,
        "state": str(settings.state),
        "repository": settings.repository.path,
        "vcenters": [
            {"name": each.name, "address": each.address, "user": each.user}
            for each in settings.vcenters.values()
        ],
        "jobs": [_job_record(settings, job, now) for job in settings.jobs.values()],
        "warnings": doubts,
    }


def _job_record(settings: Settings, job: Job, now: datetime) -> dict[str, Any]:
    from backpoint_agent.schedule import next_start

    start = next_start(job, now)
    return {
        "name": job.name,
        "vcenter": settings.vcenter_of(job).name,
        "next_run": start.astimezone(now.tzinfo).isoformat() if start else None,
        "window": job.window.model_dump(mode="json") if job.window else None,
        "transports": settings.transports_of(job),
        "retention": job.retention.model_dump(exclude_none=True) if job.retention else None,
    }
