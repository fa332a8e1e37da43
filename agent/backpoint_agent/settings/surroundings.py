"""What the configuration names on this machine and is not as it should be: doubts, not mistakes.

The file may be checked on another machine than the agent's, or before its mounts are there; so none
of this is refused when settings are read. Looks, and opens nothing but certificates: no secret is
read, no command run, nobody asked over a network.
"""

from __future__ import annotations

import os
import shlex
import shutil
import ssl
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final

from backpoint_agent.cron import dues_after
from backpoint_agent.schedule import starts_in_window
from backpoint_agent.settings.model import Job, MailSettings, SecretSettings, Settings, VddkSettings
from backpoint_repo.store.place import is_address

_STARTS_TRIED: Final = 400
"""More than a year of nights, so that a window on some weekdays only has had its chance."""


def find_doubts(settings: Settings, now: datetime, environment: Mapping[str, str]) -> list[str]:
    """Each one sentence that begins with its key. now: in the local zone."""
    return [
        *_state_doubts(settings.state),
        *_repository_doubts(settings, environment),
        *_vcenter_doubts(settings, environment),
        *_job_doubts(settings, now, environment),
        *_transport_doubts(settings),
        *_report_doubts(settings, environment),
    ]


def _state_doubts(folder: Path) -> Iterator[str]:
    if not folder.exists():
        return  # the agent makes it, private
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        yield f"state: {folder} is no folder"
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"state: {folder} is open to others; say `chmod 700 {folder}`"
    elif found.st_uid != os.geteuid():
        yield f"state: {folder} belongs to user {found.st_uid}, and you are user {os.geteuid()}"


def _repository_doubts(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    repository = settings.repository
    if is_address(repository.path):
        yield from _store_doubts(settings, environment)
    elif not Path(repository.path).is_dir():
        yield f"repository.path: there is no folder {repository.path}"
    if repository.credential is not None:
        yield from _secret_file_doubts("repository.credential", repository.credential)
    elif repository.passphrase is None:
        yield "repository: no credential; the agent will look for one in its environment"


def _store_doubts(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    store = settings.store
    for key, table in (("store", store), *((f"store.at.{n}", t) for n, t in enumerate(store.at))):
        if table.secret_access_key is not None:
            yield from _secret_doubts(
                f"{key}.secret_access_key", table.secret_access_key, environment
            )
        if table.session_token is not None:
            yield from _secret_doubts(f"{key}.session_token", table.session_token, environment)
        if table.ca_file is not None:
            yield from _authority_doubts(f"{key}.ca_file", table.ca_file)


def _vcenter_doubts(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    for name, vcenter in settings.vcenters.items():
        key = f"vcenters.{name}"
        yield from _secret_doubts(f"{key}.password", vcenter.password, environment)
        if vcenter.ca_file is not None:
            yield from _authority_doubts(f"{key}.ca_file", vcenter.ca_file)


def _job_doubts(settings: Settings, now: datetime, environment: Mapping[str, str]) -> Iterator[str]:
    for name, job in settings.jobs.items():
        key = f"jobs.{name}"
        if job.quiesce.guest is not None:
            guest_key = f"{key}.quiesce.guest.password"
            yield from _secret_doubts(guest_key, job.quiesce.guest.password, environment)
        if job.schedule is not None and not _ever_starts(job, job.schedule, now):
            yield f"{key}.schedule: none of its next starts falls into the job's window"


def _ever_starts(job: Job, schedule: str, now: datetime) -> bool:
    if job.window is None:
        return True
    dues = islice(dues_after(schedule, now), _STARTS_TRIED)
    return any(starts_in_window(job, due.astimezone(now.tzinfo)) for due in dues)


def _transport_doubts(settings: Settings) -> Iterator[str]:
    transports = settings.transports
    for name, folder in transports.datastores.items():
        key = f"transports.datastores.{name}"
        try:
            if not any(folder.iterdir()):
                yield f"{key}: {folder} is empty; is the datastore mounted?"
        except OSError as error:
            yield f"{key}: {folder} cannot be used: {error.strerror}"
    if transports.vddk is not None:
        yield from _vddk_doubts(transports.vddk)
    if transports.hotadd is not None and not transports.hotadd.by_id.is_dir():
        yield f"transports.hotadd.by_id: there is no folder {transports.hotadd.by_id}"


def _vddk_doubts(vddk: VddkSettings) -> Iterator[str]:
    program = vddk.command[0] if vddk.command else "nbdkit"
    if shutil.which(program) is None:
        yield f"transports.vddk: there is no program {program}"
    needs_libdir = vddk.command is None or any("{libdir}" in word for word in vddk.command)
    if needs_libdir and not vddk.libdir.is_dir():
        yield f"transports.vddk.libdir: there is no folder {vddk.libdir}"


def _report_doubts(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    report = settings.report
    if report.prometheus is not None:
        if report.prometheus.suffix != ".prom":
            yield "report.prometheus: node exporters read files that end in .prom only"
        if not report.prometheus.parent.is_dir():
            yield f"report.prometheus: there is no folder {report.prometheus.parent}"
    if report.mail is not None:
        yield from _mail_doubts(report.mail, environment)


def _mail_doubts(mail: MailSettings, environment: Mapping[str, str]) -> Iterator[str]:
    if mail.password is not None:
        yield from _secret_doubts("report.mail.password", mail.password, environment)
    if mail.ca_file is not None:
        yield from _authority_doubts("report.mail.ca_file", mail.ca_file)


def _secret_doubts(
    key: str, secret: SecretSettings, environment: Mapping[str, str]
) -> Iterator[str]:
    if secret.file is not None:
        yield from _secret_file_doubts(f"{key}.file", secret.file)
    elif secret.command is not None:
        program = next(iter(shlex.split(secret.command)), "")
        if shutil.which(program) is None:
            yield f"{key}.command: there is no program {program}"
    elif secret.environment not in environment:
        yield f"{key}.environment: {secret.environment} is not set here"


def _secret_file_doubts(key: str, path: Path) -> Iterator[str]:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield f"{key}: {path} cannot be used: {error.strerror}"
        return
    if stat.S_ISREG(mode) and mode & stat.S_IRWXO:
        yield f"{key}: every user of this machine can use {path}; say `chmod 600 {path}`"
    elif not os.access(path, os.R_OK):
        yield f"{key}: {path} cannot be read by you"


def _authority_doubts(key: str, path: Path) -> Iterator[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        yield f"{key}: {path} holds no certificate in PEM form"
    except OSError as error:
        yield f"{key}: {path} cannot be used: {error.strerror}"
