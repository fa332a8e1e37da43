"""The export that hosts mount, and where this machine sees the same tree.

Decides which export will do for a host: the configuration's is believed, a running one must serve
hosts, NFSv3, at the only port they come to, writable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from backpoint_agent.errors import TaskFailed
from backpoint_agent.live.nas_datastore import Remote
from backpoint_agent.live.repository_access import RepositoryAccess
from backpoint_agent.live.session_commands import ask
from backpoint_agent.settings.model import LiveSettings
from backpoint_repo.errors import UsageError

SESSIONS: Final = "live"
"""Folder of sessions in the export, and in the mount."""
_PORT: Final = 2049
_HOW: Final = "`backpoint export --nfs --listen ADDRESS --allow HOST`"


@dataclass(frozen=True)
class ExportPlace:
    """folder: the root of the same tree on this machine. home: of sessions, "" for the default."""

    remote: Remote
    folder: Path
    home: str

    def session(self, name: str) -> Path:
        """Where this machine sees the session's folder."""
        return self.folder / SESSIONS / name


def find_export(
    settings: LiveSettings, access: RepositoryAccess, wanted: Path | None = None
) -> ExportPlace:
    """The configuration's, or the one that runs on this machine. wanted: the user's --live.

    Raises UsageError where there is none that hosts can use, WaitTooLong.
    """
    home = str(wanted.absolute() if wanted else settings.sessions or "")
    if settings.address and settings.path and settings.folder:
        return ExportPlace(Remote(settings.address, settings.path), settings.folder, home)
    try:
        records = ask(access, "looking for an export", ["export", "--status"])
    except TaskFailed as error:
        raise UsageError(
            f"{error}; {_HOW} begins one, or say address, path and folder in [live]"
        ) from error
    return plan_export(records[0] if records else {}, home)


def plan_export(record: Mapping[str, Any], home: str) -> ExportPlace:
    """Pure. record: of `export --status`. home: of sessions, where somebody said one.

    Raises UsageError where hosts cannot use it.
    """
    address, path, mount = (str(record.get(key) or "") for key in ("address", "path", "mount"))
    if not address or not path or not mount:
        raise UsageError("`export --status` does not say what is exported")
    if why := _why_unusable(record, address):
        raise UsageError(f"hosts cannot use the running export: {why}; begin it anew with {_HOW}")
    sessions = str(record.get("sessions") or "")
    if home and Path(home) != Path(sessions):
        raise UsageError(f"the export has its sessions in {sessions}, not in {home}")
    return ExportPlace(Remote(address, path), Path(mount), sessions)


def _why_unusable(record: Mapping[str, Any], address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"{address!r} is no address"
    if parsed.is_loopback:
        return "it serves this machine alone"
    if parsed.is_unspecified:
        return "it does not say at which address they reach it (or say so in [live])"
    if record.get("read_only") is not False or not record.get("sessions"):
        return "it is read-only"
    if record.get("nfs_port") != _PORT:
        return f"they come to port {_PORT} only"
    versions = record.get("versions")
    if not isinstance(versions, list) or 3 not in versions:
        return "it serves no NFSv3 (is rpcbind installed?)"
    return ""
