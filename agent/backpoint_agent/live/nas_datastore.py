"""An NFS export as a datastore of vCenter's hosts. Pure.

Decides that one export is one datastore: whichever host mounts it, it has the same server's words,
path and name. Mounting is for `nas_mounting.py`; whether it may be unmounted, for `judgement.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from backpoint_agent.errors import TaskFailed
from backpoint_repo.errors import UsageError


@dataclass(frozen=True)
class Remote:
    """An export: the server in the words that hosts know it by, and the path there."""

    address: str
    path: str

    def __str__(self) -> str:
        return f"{self.address}:{self.path}"


@dataclass(frozen=True)
class NasDatastore:
    """hosts: morefs of those that have it mounted. read_only: of these. vms: morefs of VMs that
    have any file on it."""

    moref: str
    name: str
    remote: Remote
    hosts: frozenset[str]
    read_only: frozenset[str]
    vms: frozenset[str]
    accessible: bool


def find_mounted(datastores: list[NasDatastore], remote: Remote, host: str) -> NasDatastore | None:
    """The datastore of this export that the host has."""
    return next((d for d in datastores if d.remote == remote and host in d.hosts), None)


def plan_name(datastores: list[NasDatastore], remote: Remote, wanted: str) -> str:
    """What it has to be called on one more host.

    Raises UsageError where the name is another export's.
    """
    for datastore in datastores:
        if datastore.remote == remote:
            return datastore.name
    for datastore in datastores:
        if datastore.name == wanted:
            raise UsageError(
                f"the datastore {wanted} is {datastore.remote}, and {remote} is to be mounted; "
                "choose another name: `datastore` in [live] of the configuration"
            )
    return wanted


def check_usable(datastore: NasDatastore, host: str, host_name: str) -> None:
    """Raises TaskFailed where a VM could not run from it."""
    if host in datastore.read_only:
        raise TaskFailed(f"the host {host_name} has {datastore.name} mounted read-only")
    if not datastore.accessible:
        raise TaskFailed(
            f"no host reaches the datastore {datastore.name} ({datastore.remote}); is the export "
            "running?"
        )
