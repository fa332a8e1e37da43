"""What can go wrong between the agent and a vCenter, sorted by what has to be done about it.

As `backpoint_repo.errors`: a message is one sentence a user can act on, and names what it is about
(the VM, the host, the datastore, the wait). Imports no pyvmomi: `vsphere.faults` makes these.
"""

from __future__ import annotations

from backpoint_repo.errors import BackpointError, SourceError, UsageError


class ConfigMistakes(UsageError):
    """The configuration file has mistakes; the message lists each with its line and key."""


class VSphereError(BackpointError):
    """vCenter, a host or a VM did not do what the agent needs. The base of all that follow.

    faults: names of vCenter's fault type and its base types, the most special first, where it was
    one; `vsphere.faults.is_fault` asks for them.
    """

    exit_code = 7
    faults: tuple[str, ...] = ()


class CannotConnect(VSphereError):
    """No answer, a broken one, or the connection was cut: worth another try later."""


class CertificateRefused(VSphereError):
    """The server's certificate is wrong, expired, or not the pinned one. Never tried again."""


class LoginRefused(VSphereError):
    """User or password is wrong. Never tried again: accounts get locked."""


class PermissionMissing(VSphereError):
    """The account lacks a privilege; the message names it and on what."""


class ObjectGone(VSphereError):
    """The VM, snapshot or disk does not exist any more."""


class Busy(VSphereError):
    """Another task or another agent holds the VM; worth another try later."""


class QuiesceFailed(VSphereError):
    """The guest could not be brought to rest for a snapshot."""


class ChangeTrackingLost(VSphereError):
    """vCenter does not know the change id, or its answer cannot be believed: a full is needed."""


class TaskFailed(VSphereError):
    """Any other failure that a task or a call ended with; the message has vCenter's own words."""


class WaitTooLong(VSphereError):
    """A wait came to its limit; the message names the wait and the limit."""


class MachineUnfit(VSphereError):
    """The VM cannot be backed up as its job demands: a disk no snapshot covers, wrong state ..."""


class TransportUnusable(SourceError):
    """This transport cannot serve this VM's disks, the message says why; another may."""


class Stopped(BackpointError):
    """Somebody asked the work to stop: a signal, the end of a window, a failed sibling."""

    exit_code = 130
