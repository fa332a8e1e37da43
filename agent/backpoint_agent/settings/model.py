"""What the configuration file may say: every key, its type, its default, its limits.

Frozen values that are right by themselves and beside each other (`between`). Where a key stands in
the file, and how a mistake is told, is `read.py`'s business. No secret is in here: only where it
comes from. Jobs are in `job.py`, the sorts of value in `values.py`; both are had from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from backpoint_agent.settings.job import (
    AuditSettings,
    ChangeTrackingSettings,
    DiskExcludes,
    GuestLogin,
    Job,
    Limits,
    QuestionPolicy,
    QuiesceSettings,
    RetentionSettings,
    ScriptSettings,
    Selection,
    TransportName,
    Window,
)
from backpoint_agent.settings.live import LiveSettings
from backpoint_agent.settings.references import reference_mistakes
from backpoint_agent.settings.secret import SecretSettings
from backpoint_agent.settings.section import KeyPath, Section
from backpoint_agent.settings.store import StoreSettings
from backpoint_agent.settings.values import (
    Address,
    Count,
    LocalPath,
    MachineUuid,
    Port,
    RepositoryPlace,
    Seconds,
    TableName,
    Text,
    Texts,
    Thumbprint,
)
from backpoint_agent.settings.vddk_command import check_transport_modes, check_word

__all__ = [
    "AuditSettings",
    "ChangeTrackingSettings",
    "DiskExcludes",
    "GuestLogin",
    "HotAddSettings",
    "Job",
    "Limits",
    "LiveSettings",
    "MailSettings",
    "QuestionPolicy",
    "QuiesceSettings",
    "ReportSettings",
    "RepositorySettings",
    "RetentionSettings",
    "ScriptSettings",
    "Seconds",
    "SecretSettings",
    "Section",
    "Selection",
    "Settings",
    "StoreSettings",
    "TransportName",
    "TransportSettings",
    "VCenterSettings",
    "VddkSettings",
    "Waits",
    "Window",
]


class VCenterSettings(Section):
    """trust: the system's authorities unless `ca_file` or `thumbprint` is given; never none."""

    name: str = ""
    """The table's: [vcenters.NAME]. Filled in when the file is read."""
    address: Address
    """host or host:port; 443 where there is none."""
    user: Text
    password: SecretSettings
    ca_file: LocalPath | None = None
    thumbprint: Thumbprint | None = None
    """SHA-256 (or SHA-1, as VMware shows it) of the certificate; always "AA:BB:..."."""
    request_limit_s: Seconds = 60
    """An exchange that takes longer is given up."""
    keep_alive_s: Seconds = 300
    machines_at_once: Count = 8
    nfc_connections: Count = 32

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """Two ways to trust one server leave open which counts."""
        if given.get("ca_file") is not None and given.get("thumbprint") is not None:
            yield ("thumbprint",), "excludes ca_file: pin the certificate or trust an authority"


class RepositorySettings(Section):
    """Where to, and the agent's credential (a file) or the owner's passphrase; with neither, what
    the environment names as for every other command."""

    path: RepositoryPlace
    """A directory, or the address of a bucket and a prefix in it."""
    credential: LocalPath | None = None
    passphrase: SecretSettings | None = None

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """One key opens it."""
        if given.get("credential") is not None and given.get("passphrase") is not None:
            yield ("passphrase",), "excludes credential; the agent needs only the credential"


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


class VddkSettings(Section):
    """nbdkit with the operator's VDDK. command: words; {socket}, {pidfile}, {libdir}, {server},
    {user}, {password_file}, {thumbprint}, {moref}, {snapshot}, {transports}, {compression} and
    {file} are put in, each into its word; none of them is a secret."""

    may_repeat: ClassVar[frozenset[str]] = frozenset({"command"})

    libdir: LocalPath = Path("/opt/vmware-vix-disklib-distrib")
    transports: Annotated[Text, AfterValidator(check_transport_modes)] = "nbdssl:nbd"
    compression: Literal["none", "zlib", "fastlz", "skipz"] = "none"
    command: (
        Annotated[tuple[Annotated[Text, AfterValidator(check_word)], ...], Field(min_length=1)]
        | None
    ) = None


class HotAddSettings(Section):
    """proxy: instanceUuid of the VM this agent runs in. by_id: where the kernel names disks."""

    proxy: MachineUuid
    by_id: LocalPath = Path("/dev/disk/by-id")
    appear_s: Seconds = 30


class TransportSettings(Section):
    """datastores: name of a datastore -> folder where it is mounted here."""

    vddk: VddkSettings | None = None
    datastores: dict[Text, LocalPath] = Field(default_factory=dict)
    hotadd: HotAddSettings | None = None
    https_connections: Annotated[int, Field(strict=True, ge=1, le=16)] = 4

    def configured(self, name: TransportName) -> bool:
        """Whether it can be tried at all; https and export need no table."""
        if name == "datastore":
            return bool(self.datastores)
        return name in ("https", "export") or getattr(self, name) is not None

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """One folder for two datastores would serve one's disks as the other's."""
        seen: dict[str, str] = {}
        mounts = given.get("datastores")
        for name, folder in mounts.items() if isinstance(mounts, Mapping) else ():
            first = seen.setdefault(str(folder), name)
            if first != name:
                yield ("datastores", name), f'is the folder of "{first}" too'


class MailSettings(Section):
    """when: always, or only where something is wrong."""

    server: Text
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: LocalPath | None = None
    user: Text | None = None
    password: SecretSettings | None = None
    sender: Text
    to: Annotated[Texts, Field(min_length=1)]
    when: Literal["always", "trouble"] = "trouble"

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """A login is a user and a password, and does not travel in the clear."""
        if given.get("user") is not None and given.get("password") is None:
            yield ("user",), "needs a password beside it"
        if given.get("password") is not None:
            if given.get("user") is None:
                yield ("password",), "needs a user beside it"
            if given.get("security") == "none":
                yield ("security",), 'must be "starttls" or "tls" where there is a password'


class ReportSettings(Section):
    """records: folder of JSON records. prometheus: the text file. Both below `state` by default."""

    records: LocalPath | None = None
    prometheus: LocalPath | None = None
    mail: MailSettings | None = None


def _named_vcenters(tables: dict[str, VCenterSettings]) -> dict[str, VCenterSettings]:
    return {name: table.model_copy(update={"name": name}) for name, table in tables.items()}


def _named_jobs(tables: dict[str, Job]) -> dict[str, Job]:
    return {name: table.model_copy(update={"name": name}) for name, table in tables.items()}


class Settings(Section):
    """The whole file. Relative paths are relative to the file's folder."""

    state: LocalPath = Path("/var/lib/backpoint")
    """Ledger, locks and run records; private to the user who runs the agent."""
    repository: RepositorySettings
    store: StoreSettings = StoreSettings()
    vcenters: Annotated[
        dict[TableName, VCenterSettings], Field(min_length=1), AfterValidator(_named_vcenters)
    ]
    jobs: Annotated[dict[TableName, Job], AfterValidator(_named_jobs)] = Field(default_factory=dict)
    transports: TransportSettings = TransportSettings()
    live: LiveSettings = LiveSettings()
    waits: Waits = Waits()
    report: ReportSettings = ReportSettings()

    @classmethod
    def between(cls, given: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
        """What a table says of another."""
        return reference_mistakes(given)

    def vcenter_of(self, job: Job) -> VCenterSettings:
        """The vCenter a job is for: the one it names, or the only one."""
        return self.vcenters[job.vcenter or next(iter(self.vcenters))]

    def transports_of(self, job: Job) -> tuple[TransportName, ...]:
        """A job's transports in order, those left out that are not configured. Only the default
        order has such: one that is named without being configured is a mistake of the file."""
        return tuple(name for name in job.transports if self.transports.configured(name))
