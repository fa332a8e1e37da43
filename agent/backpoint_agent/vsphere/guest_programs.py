"""Programs in the guest, by VMware Tools: started, waited for, their exit code.

Decides when a program has failed. What is run, and what its failure means, is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from backpoint_agent.errors import TaskFailed, WaitTooLong
from backpoint_agent.secret_reading import read_secret
from backpoint_agent.settings.model import GuestLogin, ScriptSettings
from backpoint_agent.stopping import Stop
from backpoint_agent.vsphere.vcenter import VCenter

_LOOK_EVERY_S: Final = 0.5


def run_in_guest(
    vcenter: VCenter, vm: str, login: GuestLogin, script: ScriptSettings, stop: Stop | None
) -> None:
    """Run and wait. Raises TaskFailed for an exit code other than 0, WaitTooLong, Stopped, and as
    `VCenter.call` where Tools or the login refuse."""
    from pyVmomi import vim

    machine = vcenter.object("VirtualMachine", vm)
    processes = vcenter.call(
        "reaching the guest", lambda: vcenter.content.guestOperationsManager.processManager
    )
    auth = vim.vm.guest.NamePasswordAuthentication(
        username=login.user,
        password=read_secret(login.password, "guest password"),
        interactiveSession=False,
    )
    spec = vim.vm.guest.ProcessManager.ProgramSpec(
        programPath=script.program, arguments=script.arguments
    )
    pid = vcenter.call(
        f"starting {script.program} in the guest",
        lambda: processes.StartProgramInGuest(vm=machine, auth=auth, spec=spec),
        repeat=False,
    )
    waiting = stop or Stop()
    for _ in range(max(1, round(script.limit_s / _LOOK_EVERY_S))):
        listed = vcenter.call(
            f"waiting for {script.program} in the guest",
            lambda: processes.ListProcessesInGuest(vm=machine, auth=auth, pids=[pid]),
        )
        code = _exit_code(listed, pid)
        if code == 0:
            return
        if code is not None:
            raise TaskFailed(f"{script.program} in the guest ended with {code}")
        waiting.wait(_LOOK_EVERY_S)
    raise WaitTooLong(f"{script.program} in the guest took more than {script.limit_s:g} s")


def _exit_code(listed: Iterable[Any], pid: int) -> int | None:
    """None while it runs. Tools forget a program five minutes after its end."""
    for process in listed or ():
        if process.pid == pid:
            return None if process.endTime is None else int(process.exitCode or 0)
    raise TaskFailed(f"the guest knows nothing of the program it was to run (pid {pid})")
