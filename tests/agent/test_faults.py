"""vSphere's faults become errors that say what has to be done, in bounded, clean words."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from backpoint_agent.errors import (
    Busy,
    CannotConnect,
    LoginRefused,
    ObjectGone,
    PermissionMissing,
    QuiesceFailed,
    TaskFailed,
    VSphereError,
)
from backpoint_agent.vsphere.faults import WORDS_MAX, error_of, is_fault

MEANINGS = [
    (vim.fault.InvalidLogin, LoginRefused),
    (vim.fault.PasswordExpired, LoginRefused),
    (vim.fault.NotAuthenticated, CannotConnect),
    (vim.fault.NoPermission, PermissionMissing),
    (vmodl.fault.ManagedObjectNotFound, ObjectGone),
    (vim.fault.TaskInProgress, Busy),
    (vim.fault.ConcurrentAccess, Busy),
    (vim.fault.ResourceInUse, Busy),
    (vim.fault.SnapshotLocked, Busy),
    (vim.fault.FileLocked, Busy),
    (vim.fault.ApplicationQuiesceFault, QuiesceFailed),
    (vim.fault.FilesystemQuiesceFault, QuiesceFailed),
    (vim.fault.TooManySnapshotLevels, TaskFailed),
    (vim.fault.InvalidPowerState, TaskFailed),
    (vim.fault.InvalidState, TaskFailed),
    (vim.fault.FileFault, TaskFailed),
    (vim.fault.RestrictedVersion, TaskFailed),
    (vim.fault.NoDiskSpace, TaskFailed),
    (vmodl.fault.HostCommunication, CannotConnect),
    (vmodl.fault.HostNotReachable, CannotConnect),
    (vmodl.fault.SystemError, TaskFailed),
    (vmodl.MethodFault, TaskFailed),
]


def _text(key: str, message: str) -> Any:
    return vmodl.LocalizableMessage(key=key, message=message)


@pytest.mark.parametrize(("fault", "kind"), MEANINGS, ids=lambda each: each.__name__)
def test_meaning(fault: Any, kind: type[VSphereError]) -> None:
    """Each fault is of the class that says what has to be done, and names what was tried."""
    error = error_of("removing the snapshot of web01", fault())
    assert type(error) is kind
    assert str(error).startswith("removing the snapshot of web01: ")
    assert is_fault(error, fault.__name__.rpartition(".")[2])


def test_a_derived_fault_is_its_base_too() -> None:
    """A caller that asks for FileFault finds FileNotFound, and not the other way round."""
    error = error_of("reading areas", vim.fault.FileNotFound())
    assert is_fault(error, "FileNotFound")
    assert is_fault(error, "FileFault")
    assert not is_fault(error_of("reading areas", vim.fault.FileFault()), "FileNotFound")
    assert not is_fault(ValueError("no fault of vSphere's"), "FileFault")


def test_words_of_all_levels_are_told_once() -> None:
    """The fault's text, its messages and its causes' are in the message, without repetition."""
    cause = vim.fault.FileFault(file="[ds] a.vmdk", msg="Cannot open [ds] a.vmdk.")
    said = [_text("k", "Failed to lock the file."), _text("k", "An error occurred.")]
    fault = vim.fault.GenericVmConfigFault(
        reason="a reason", msg="An error occurred.", faultMessage=said, faultCause=cause
    )
    assert str(error_of("x", fault)) == (
        "x: An error occurred; Failed to lock the file; a reason; Cannot open [ds] a.vmdk"
    )


def test_a_fault_without_words_is_named() -> None:
    """There is always something to look for."""
    assert str(error_of("x", vim.fault.SnapshotNoChange())) == "x: SnapshotNoChange"


def test_words_are_clean_and_bounded() -> None:
    """A guest can put anything in a message: no terminal is steered, no log is filled."""
    fault = vmodl.MethodFault(msg="\x1b[2Ja\r\nb\x00\u202ec" + "y" * 1_000_000)
    text = str(error_of("x", fault))
    assert text.isprintable()
    assert len(text) <= WORDS_MAX + 3
    loop = vmodl.MethodFault(msg="round")
    loop.faultCause = loop
    assert str(error_of("x", loop)) == "x: round"


def test_quiescing_known_by_its_key_alone() -> None:
    """Most failed quiescing comes as a generic fault; its key is the same in every language."""
    said = [_text("msg.snapshot.error-QUIESCINGERROR", "Fehler beim Stilllegen")]
    fault = vim.fault.GenericVmConfigFault(reason="-", faultMessage=said)
    assert type(error_of("x", fault)) is QuiesceFailed


def test_missing_privilege_is_named_with_its_object() -> None:
    """Old vCenters name one privilege, new ones all of them for each object."""
    vm, folder = vim.VirtualMachine("vm-1"), vim.Folder("group-2")
    names = {"vm-1": "web01 (vm-1)", "group-2": "prod (group-2)"}
    old = vim.fault.NoPermission(object=vm, privilegeId="VirtualMachine.State.CreateSnapshot")
    missing = [
        vim.fault.NoPermission.EntityPrivileges(entity=vm, privilegeIds=["A.b", "C.d"]),
        vim.fault.NoPermission.EntityPrivileges(entity=folder, privilegeIds=["E.f"]),
    ]
    new = vim.fault.NoPermission(object=vm, privilegeId="A.b", missingPrivileges=missing)

    def name_of(entity: Any) -> str:
        return names[entity._moId]

    assert str(error_of("x", old, name_of)) == (
        "x: the account lacks the privilege VirtualMachine.State.CreateSnapshot on web01 (vm-1)"
    )
    assert str(error_of("x", new, name_of)) == (
        "x: the account lacks the privilege A.b, C.d on web01 (vm-1) and E.f on prod (group-2)"
    )
