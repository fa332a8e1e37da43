"""What the configuration file may say: every key, its type, its default, its limits.

Frozen values that are right by themselves; what only shows when two keys are seen together is
checked here too. Where a key stands in the file, and how a mistake is told, is `read.py`'s
business. No secret is in here: only where it comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=100)]
TransportName = Literal["vddk", "datastore", "https", "export", "hotadd"]


class Section(BaseModel):
    """A table: frozen, and a key that is not known is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class SecretSettings(Section):
    """Exactly one of the three: a file's first line, a command's, or an environment variable."""

    file: Path | None = None
    command: str | None = None
    environment: str | None = None


class VCenterSettings(Section):
    """trust: the system's authorities unless `ca_file` or `thumbprint` is given; never none."""

    name: str = ""
    address: str
    """host or host:port; 443 where there is none."""
    user: str
    password: SecretSettings
    ca_file: Path | None = None
    thumbprint: str | None = None
    """SHA-256 (or SHA-1, as VMware shows it) of the certificate, "AA:BB:..."."""
    request_limit_s: Seconds = 60
    """An exchange that takes longer is given up."""
    keep_alive_s: Seconds = 300
    machines_at_once: Annotated[int, Field(ge=1)] = 8
    nfc_connections: Annotated[int, Field(ge=1)] = 32


class RepositorySettings(Section):
    """Where to, and the agent's credential (a file) or the owner's passphrase."""

    path: str
    credential: Path | None = None
    passphrase: SecretSettings | None = None


class Selection(Section):
    """Which VMs: whatever matches any of what is given. Patterns are shell patterns (`web*`);
    `folder`, `cluster`, `resource_pool` match the path or its end and all below it;
    `tag` is "category/name" or "name"; `attribute` is "name=pattern"."""

    names: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    datastores: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    resource_pools: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    everything: bool = False


class DiskExcludes(Section):
    """Disks left out, of the VMs that match `vm`: by place ("scsi0:1"), label or file pattern."""

    vm: str = "*"
    disks: tuple[str, ...]


class ScriptSettings(Section):
    """A program in the guest, by VMware Tools."""

    program: str
    arguments: str = ""
    limit_s: Seconds = 60
    required: bool = True
    """A failure ends the run (True) or becomes a warning of the point."""


class GuestLogin(Section):
    """Who runs the scripts in the guest."""

    user: str
    password: SecretSettings


class QuiesceSettings(Section):
    """require: no point without; prefer: retried, then crash-consistent and the point says so."""

    policy: Literal["require", "prefer", "off"] = "prefer"
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    retry_after_s: Seconds = 10
    limit_s: Seconds = 300
    guest: GuestLogin | None = None
    pre_freeze: ScriptSettings | None = None
    post_thaw: ScriptSettings | None = None


class AuditSettings(Section):
    """Finds a lost 64 KiB with this probability in this many incrementals."""

    probability: Annotated[float, Field(ge=0, le=1)] = 0.9
    """0 switches the audit off."""
    runs: Annotated[int, Field(ge=1, le=10_000)] = 30


class ChangeTrackingSettings(Section):
    """enable: switch it on where it is off; off: never use it, compare everything."""

    policy: Literal["enable", "if-on", "off"] = "enable"
    audit: AuditSettings = AuditSettings()
    full_every_days: Annotated[float, Field(gt=0)] | None = None
    """Read everything again after so many days, whatever change tracking says."""


class Window(Section):
    """When backups may begin: local time, "22:00" to "06:00"; days by their first three letters."""

    start: str
    end: str
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = (
        "mon", "tue", "wed", "thu", "fri", "sat", "sun",
    )  # fmt: skip
    at_end: Literal["finish", "stop"] = "finish"
    """What is still running at its end is finished, or stopped (its point is not made)."""


class Limits(Section):
    """How much at once, and how fast."""

    machines_at_once: Annotated[int, Field(ge=1)] = 4
    per_host: Annotated[int, Field(ge=1)] = 4
    per_datastore: Annotated[int, Field(ge=1)] = 4
    bandwidth: str | None = None
    """Bytes a second of all reads of the job together: "200M"."""
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """More tries for a VM whose failure may pass, with back-off."""
    retry_after_s: Seconds = 60


class Waits(Section):
    """No wait is endless: the limit of each."""

    change_tracking_s: Seconds = 300
    snapshot_create_s: Seconds = 900
    snapshot_remove_s: Seconds = 14_400
    consolidate_s: Seconds = 14_400
    machine_lock_s: Seconds = 600
    """For another agent that works on the same VM."""
    power_s: Seconds = 300
    reconfigure_s: Seconds = 300


class RetentionSettings(Section):
    """What `prune` will keep; stored with the job, applied by the owner."""

    keep_last: Annotated[int, Field(ge=1)] | None = None
    keep_daily: Annotated[int, Field(ge=0)] | None = None
    keep_weekly: Annotated[int, Field(ge=0)] | None = None
    keep_monthly: Annotated[int, Field(ge=0)] | None = None
    keep_yearly: Annotated[int, Field(ge=0)] | None = None


class QuestionPolicy(Section):
    """How a VM's pending question is answered: a pattern in its text, and the choice's label."""

    text: str
    answer: str


class Job(Section):
    """One job. schedule: five cron fields, local time; None: only by hand."""

    name: str = ""
    vcenter: str | None = None
    """None where there is only one."""
    select: Selection
    exclude: Selection = Selection()
    exclude_disks: tuple[DiskExcludes, ...] = ()
    templates: bool = False
    unfit_disks: Literal["refuse", "skip"] = "refuse"
    schedule: str | None = None
    window: Window | None = None
    rpo_hours: Annotated[float, Field(gt=0)] | None = None
    quiesce: QuiesceSettings = QuiesceSettings()
    change_tracking: ChangeTrackingSettings = ChangeTrackingSettings()
    transports: tuple[TransportName, ...] = ("vddk", "hotadd", "datastore", "https", "export")
    limits: Limits = Limits()
    retention: RetentionSettings | None = None
    questions: tuple[QuestionPolicy, ...] = ()


class VddkSettings(Section):
    """nbdkit with the operator's VDDK. command: words; {socket}, {pidfile}, {libdir}, {server},
    {user}, {password_file}, {thumbprint}, {moref}, {snapshot}, {transports}, {compression} and
    {file} are put in, each into its word; none of them is a secret."""

    libdir: Path = Path("/opt/vmware-vix-disklib-distrib")
    transports: str = "nbdssl:nbd"
    compression: Literal["none", "zlib", "fastlz", "skipz"] = "none"
    command: tuple[str, ...] | None = None


class HotAddSettings(Section):
    """proxy: instanceUuid of the VM this agent runs in. by_id: where the kernel names disks."""

    proxy: str
    by_id: Path = Path("/dev/disk/by-id")
    appear_s: Seconds = 30


class TransportSettings(Section):
    """datastores: name of a datastore -> folder where it is mounted here."""

    vddk: VddkSettings | None = None
    datastores: dict[str, Path] = {}
    hotadd: HotAddSettings | None = None
    https_connections: Annotated[int, Field(ge=1, le=16)] = 4


class MailSettings(Section):
    """when: always, or only where something is wrong."""

    server: str
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    user: str | None = None
    password: SecretSettings | None = None
    sender: str
    to: tuple[str, ...]
    when: Literal["always", "trouble"] = "trouble"


class ReportSettings(Section):
    """records: folder of JSON records. prometheus: the text file. Both below `state` by default."""

    records: Path | None = None
    prometheus: Path | None = None
    mail: MailSettings | None = None


class Settings(Section):
    """The whole file. Relative paths are relative to the file's folder."""

    state: Path = Path("/var/lib/backpoint")
    """Ledger, locks and run records; private to the user who runs the agent."""
    repository: RepositorySettings
    vcenters: dict[str, VCenterSettings]
    jobs: dict[str, Job] = {}
    transports: TransportSettings = TransportSettings()
    waits: Waits = Waits()
    report: ReportSettings = ReportSettings()
