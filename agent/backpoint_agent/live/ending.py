"""The end of a VM that runs from a session: off, out of the inventory, its session discarded.

Every step may have been done before. Whether it may be done at all is for `judgement.py`.
"""

from __future__ import annotations

from backpoint_agent.errors import ObjectGone
from backpoint_agent.live.live_facts import LiveFacts
from backpoint_agent.live.repository_access import RepositoryAccess
from backpoint_agent.live.session_commands import discard_session
from backpoint_agent.settings.model import Waits
from backpoint_agent.vsphere.tasks import run_task
from backpoint_agent.vsphere.vcenter import VCenter


def end_live(
    vcenter: VCenter, waits: Waits, access: RepositoryAccess, facts: LiveFacts, vm: str
) -> str:
    """vm: moref of the VM that is to go, "" where none is left. What was done, for the user.

    Raises VSphereError: then all of it may be tried again.
    """
    said = []
    if vm:
        said.append(_remove(vcenter, waits, facts.name, vm))
    if facts.session:
        said.append(discard_session(access, facts.home, facts.session))
    return ", ".join(said)


def _remove(vcenter: VCenter, waits: Waits, name: str, vm: str) -> str:
    machine = vcenter.object("VirtualMachine", vm)
    try:
        runtime = vcenter.call(f"looking whether {name} runs", lambda: machine.runtime)
        if runtime.powerState == "poweredOn":
            run_task(
                vcenter,
                f"powering off {name}",
                machine.PowerOffVM_Task,
                limit_s=waits.power_s,
                stop=None,
            )
        vcenter.call(f"unregistering {name}", machine.UnregisterVM, repeat=False)
    except ObjectGone:
        return f"the VM {name} had gone just then"
    return f"the VM {name} was unregistered"
