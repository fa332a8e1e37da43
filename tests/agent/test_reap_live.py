"""A boot in a vCenter killed at every moment: the reaper leaves no VM, no datastore, no session."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import vim

from backpoint_agent.live.vmx_plan import MARK
from live_scene import LiveScene, record_of, running_live_scene
from vcsim.client import until

MOMENTS = (
    "after Intended",  # nothing but the entry
    "before mounting",  # the session is there
    "before registering",  # the datastore is mounted, the .vmx is written
    "after registering",  # nobody has heard which VM it is
    "after powering",  # it runs, and is not yet said to be wanted
)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, guest_image: Path) -> Iterator[LiveScene]:
    """Each test leaves it as it was."""
    with running_live_scene(tmp_path_factory.mktemp("live"), guest_image) as scene:
        yield scene


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_boot_killed_before_it_was_whole_is_undone(live: LiveScene, moment: str) -> None:
    """What it had begun is in the ledger, and goes; nothing else does."""
    before = live.morefs()
    end = live.commands.run(*live.boot_words(), die_at=moment)
    assert end.killed, end
    assert end.moment.startswith(moment)
    live.run("agent", "reap")
    live.assert_as_before(before)


def test_a_boot_killed_when_it_was_whole_stays_and_an_end_killed_goes_on(
    live: LiveScene,
) -> None:
    """Killed after the last entry the VM is wanted. An end that was asked for is finished by the
    reaper, from wherever it was killed."""
    before = live.morefs()
    end = live.commands.run(*live.boot_words(), die_at="after powering")
    assert end.killed
    shown = live.run("agent", "reap", "--dry-run").out
    assert "end the VM that runs from the backup" in shown
    live.run("agent", "reap")
    record = record_of(live.run(*live.boot_words()))
    live.run("agent", "reap")
    assert live.morefs() == before | {record["moref"]}
    words = ("live", "end", record["session"])
    for moment in ("before Learned", "before powering off", "after powering off"):
        assert live.commands.run(*words, die_at=moment).killed, moment
    assert live.morefs() == before | {record["moref"]}
    assert live.commands.run(*words, die_at="after unregistering").killed
    assert live.stored_sessions() == {record["session"]}
    live.run("agent", "reap")
    live.assert_as_before(before)


def test_a_boot_terminated_while_vcenter_registers_is_undone_when_it_appeared(
    live: LiveScene,
) -> None:
    """It does not wait for what may come, says so, and the reaper finds the VM by its .vmx."""
    before = live.morefs()
    simulator = live.scene.simulator
    simulator.forget_calls()
    simulator.hang_tasks("RegisterVM_Task")
    with live.line.start(*live.boot_words()) as process:
        until(lambda: any(call.method == "RegisterVM_Task" for call in simulator.calls()))
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert b"`backpoint agent reap` undoes what comes" in said
    assert live.morefs() == before
    simulator.release_tasks()
    until(lambda: live.morefs() != before)
    live.run("agent", "reap")
    live.assert_as_before(before)


def test_a_vm_without_the_mark_is_not_touched(live: LiveScene) -> None:
    """Somebody put a VM of theirs in the place of ours: it is kept, with its session, and said."""
    before = live.morefs()
    end = live.commands.run(*live.boot_words(), die_at="after registering")
    assert end.killed
    (moref,) = live.morefs() - before
    off = [vim.option.OptionValue(key=MARK, value="")]
    live.scene.run(moref, "ReconfigVM_Task", vim.vm.ConfigSpec(extraConfig=off))
    live.scene.run(moref, "PowerOnVM_Task")
    said = live.run("agent", "reap", code=7).out
    assert "nothing proves that the VM" in said
    assert live.machine(moref).power == "poweredOn"
    (session,) = live.stored_sessions()
    live.run("live", "end", session, code=7)
    assert live.stored_sessions() == {session}
    live.scene.run(moref, "PowerOffVM_Task")
    live.scene.vcenter.object("VirtualMachine", moref).UnregisterVM()
    live.run("agent", "reap")
    live.assert_as_before(before)
