"""What a job may say: which VMs, when, how they are brought to rest, how fast, kept how long.

Defaults and limits of each key are here and nowhere else; the annotated example repeats them, and a
test holds it to that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field

from backpoint_agent.settings.secret import SecretSettings
from backpoint_agent.settings.section import KeyPath, Section
from backpoint_agent.settings.values import (
    AttributePattern,
    Count,
    CronExpression,
    Days,
    Duration,
    Flag,
    Hours,
    Kept,
    Probability,
    Rate,
    Retries,
    Seconds,
    Text,
    Texts,
    TimeOfDay,
)
from backpoint_repo.errors import UsageError
from backpoint_repo.retention.rules import Rules
from backpoint_repo.sizes import parse_duration, parse_size

TransportName = Literal["vddk", "datastore", "https", "export", "hotadd"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = get_args(Weekday)


class Selection(Section):
    """Which VMs: whatever matches any of what is given. Patterns are shell patterns (`web*`);
    `folder`, `cluster`, `resource_pool` match the path or its end and all below it;
    `tag` is "category/name" or "name"; `attribute` is "name=pattern"."""

    names: Texts = ()
    folders: Texts = ()
    tags: Texts = ()
    datastores: Texts = ()
    clusters: Texts = ()
    resource_pools: Texts = ()
    attributes: tuple[AttributePattern, ...] = ()
    everything: Flag = False

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """`everything` beside a pattern reads as if the pattern restricted it."""
        if given.get("everything") is True:
            others = [key for key in cls.model_fields if key != "everything" and given.get(key)]
            if others:
                yield ("everything",), f"takes every VM, whatever {', '.join(others)} says"


class DiskExcludes(Section):
    """Disks left out, of the VMs that match `vm`: by place ("scsi0:1"), label or file pattern."""

    vm: Text = "*"
    disks: Annotated[Texts, Field(min_length=1)]


class ScriptSettings(Section):
    """A program in the guest, by VMware Tools."""

    program: Text
    arguments: str = ""
    limit_s: Seconds = 60
    required: Flag = True
    """A failure ends the run (True) or becomes a warning of the point."""


class GuestLogin(Section):
    """Who runs the scripts in the guest."""

    user: Text
    password: SecretSettings


class QuiesceSettings(Section):
    """require: no point without; prefer: retried, then crash-consistent and the point says so."""

    policy: Literal["require", "prefer", "off"] = "prefer"
    retries: Retries = 2
    retry_after_s: Seconds = 10
    limit_s: Seconds = 300
    guest: GuestLogin | None = None
    pre_freeze: ScriptSettings | None = None
    post_thaw: ScriptSettings | None = None

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """No script without somebody who runs it."""
        if given.get("guest") is None:
            for script in ("pre_freeze", "post_thaw"):
                if given.get(script) is not None:
                    yield (script,), "needs the guest's login: a table `guest` beside it"


class AuditSettings(Section):
    """Finds a lost 64 KiB with this probability in this many incrementals."""

    probability: Probability = 0.9
    """0 switches the audit off."""
    runs: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 30


class ChangeTrackingSettings(Section):
    """enable: switch it on where it is off; off: never use it, compare everything."""

    policy: Literal["enable", "if-on", "off"] = "enable"
    audit: AuditSettings = AuditSettings()
    full_every_days: Days | None = None
    """Read everything again after so many days, whatever change tracking says."""


class Window(Section):
    """When backups may begin: local time, "22:00" to "06:00"; days by their first three letters.

    A window over midnight belongs to the day it begins on. `window.py` says which moments it means.
    """

    start: TimeOfDay
    end: TimeOfDay
    days: Annotated[tuple[Weekday, ...], Field(min_length=1)] = WEEKDAYS
    at_end: Literal["finish", "stop"] = "finish"
    """What is still running at its end is finished, or stopped (its point is not made)."""

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """Nobody can say whether the same time twice is a whole day or nothing."""
        if given.get("start") is not None and given.get("start") == given.get("end"):
            yield ("end",), "is the window's start too; for the whole day leave the window out"


class Limits(Section):
    """How much at once, and how fast."""

    machines_at_once: Count = 4
    per_host: Count = 4
    per_datastore: Count = 4
    bandwidth: Rate | None = None
    """Bytes a second of all reads of the job together: "200M"."""
    retries: Retries = 2
    """More tries for a VM whose failure may pass, with back-off."""
    retry_after_s: Seconds = 60

    @property
    def bytes_per_s(self) -> int | None:
        """`bandwidth` as a number; None where there is no limit."""
        return None if self.bandwidth is None else parse_size(self.bandwidth)


class RetentionSettings(Section):
    """What is kept of each VM of the job, as `backpoint prune` says it; applied after each run."""

    keep_last: Annotated[Kept, Field(ge=1)] | None = None
    keep_hourly: Kept | None = None
    keep_daily: Kept | None = None
    keep_weekly: Kept | None = None
    keep_monthly: Kept | None = None
    keep_yearly: Kept | None = None
    keep_within: Duration | None = None
    """Back from a VM's newest point: "14d"."""

    @property
    def rules(self) -> Rules:
        """As retention takes them. Raises UsageError where they keep nothing."""
        return Rules(
            last=self.keep_last or 0,
            hourly=self.keep_hourly or 0,
            daily=self.keep_daily or 0,
            weekly=self.keep_weekly or 0,
            monthly=self.keep_monthly or 0,
            yearly=self.keep_yearly or 0,
            within_s=parse_duration(self.keep_within or "0"),
        )

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """To keep everything, the table is left out; to keep nothing is not what anybody wants."""
        if not any(_keeps(given.get(key)) for key in cls.model_fields):
            yield (), "keeps nothing; leave the table out to keep every point"


def _keeps(value: object) -> bool:
    """What is no value at all is told as another mistake."""
    if isinstance(value, str):
        with suppress(UsageError):
            return parse_duration(value) > 0
    return bool(value)


class QuestionPolicy(Section):
    """How a VM's pending question is answered: a pattern in its text, and the choice's label."""

    text: Text
    answer: Text


class Job(Section):
    """One job. schedule: five cron fields, local time; None: only by hand."""

    name: str = ""
    """The table's: [jobs.NAME]. Filled in when the file is read."""
    vcenter: Text | None = None
    """None where there is only one; see `Settings.vcenter_of`."""
    select: Selection
    exclude: Selection = Selection()
    exclude_disks: tuple[DiskExcludes, ...] = ()
    templates: Flag = False
    unfit_disks: Literal["refuse", "skip"] = "refuse"
    schedule: CronExpression | None = None
    window: Window | None = None
    rpo_hours: Hours | None = None
    quiesce: QuiesceSettings = QuiesceSettings()
    change_tracking: ChangeTrackingSettings = ChangeTrackingSettings()
    transports: Annotated[tuple[TransportName, ...], Field(min_length=1)] = (
        "vddk",
        "hotadd",
        "datastore",
        "https",
        "export",
    )
    """As written, or the default order; see `Settings.transports_of`."""
    limits: Limits = Limits()
    retention: RetentionSettings | None = None
    questions: tuple[QuestionPolicy, ...] = ()

    @property
    def transports_chosen(self) -> bool:
        """Whether the file names the transports, or the order is the default one."""
        return "transports" in self.model_fields_set

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """A job that can never back up any VM. Of the file only: who builds a job in code may."""
        select = given.get("select")
        if isinstance(select, Mapping) and not any(map(select.get, Selection.model_fields)):
            yield ("select",), "selects nothing; `everything = true` takes every VM"
        exclude = given.get("exclude")
        if isinstance(exclude, Mapping) and exclude.get("everything") is True:
            yield ("exclude", "everything"), "leaves no VM to back up"
