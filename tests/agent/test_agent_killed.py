"""`backpoint agent backup` killed at every moment: the reaper, or the next backup, removes exactly
what was ours, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_site import NIGHTLY, Site, running_site
from backpoint_agent.ledger import Ledger
from backpoint_agent.state_folder import make_state_folder
from mortal_commands import End, Mortals, mortals
from vcsim.client import Client, connected, done, until

MOMENTS_MAX = 60
DETAILS = """
[jobs.nightly.change_tracking]
audit = { probability = 0.0 }
[jobs.nightly.quiesce]
guest = { user = "backup", password = { file = "guest-password" } }
pre_freeze = { program = "/bin/freeze" }
post_thaw = { program = "/bin/thaw" }
"""
ONLY_FIRST = NIGHTLY.replace("everything = true", 'names = ["*VM0"]')
USERS = "a user's"
MOMENTS = [
    f"{side} {what}"
    for what in (
        "Intended", "Learned", "Closed", "starting", "making the snapshot", "removing snapshot",
        "a read", "publishing",
    )
    for side in ("before", "after")
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A job of the first VM, with scripts in the guest; the second VM has a user's snapshot."""
    secret = tmp_path / "guest-password"
    secret.touch(0o600)
    secret.write_text("Guest-secret-1\n")
    with running_site(tmp_path, disks=True, vms=2) as ready:
        ready.configure(ONLY_FIRST + DETAILS)
        yield ready


@pytest.fixture
def commands(site: Site) -> Iterator[Mortals]:
    with mortals(dict(site.line.variables)) as server:
        yield server


@pytest.fixture
def admin(site: Site) -> Iterator[Client]:
    with connected(site.simulator) as client:
        yield client


def snapshot(vm: Any) -> Any:
    return done(vm.CreateSnapshot_Task(USERS, "", False, False))


def good(end: End) -> End:
    assert end.code == 0, end
    assert "Traceback" not in end.err
    return end


def thaws(site: Site) -> int:
    """How often the guest was thawed, less how often it was frozen."""
    programs = [c.detail for c in site.simulator.calls() if c.method == "guest program"]
    return sum("thaw" in p for p in programs) - sum("freeze" in p for p in programs)


def assert_ours_is_gone(site: Site, users: int = 0) -> None:
    """From the first VM and from the ledger."""
    machine = site.machines()[0]
    assert len(machine.snapshots) == users
    assert users or not any(disk.has_parent for disk in machine.disks)
    with Ledger(make_state_folder(site.state).ledger) as ledger:
        assert ledger.open_effects() == []


def test_killed_at_every_moment(site: Site, commands: Mortals, admin: Client) -> None:
    """Before and after each line of the ledger, each request with an effect, each read, and the
    point's publication: then `reap` or the next backup finds all that was ours, and nothing else.
    """
    theirs = snapshot(admin.vm(1))
    others = site.live(site.vms[1])
    good(commands.run("agent", "backup"))
    reached: list[str] = []
    for moment in range(1, MOMENTS_MAX):
        site.simulator.write(site.vms[0], 4096 * moment, bytes([moment]) * 3000)
        now = site.live(site.vms[0])
        end = commands.run("agent", "backup", die_at=moment)
        if not end.killed:
            break
        reached.append(end.moment)
        if moment % 2:
            good(commands.run("agent", "reap"))
        else:
            good(commands.run("agent", "backup"))
            assert site.content(max(site.points(), key=lambda p: p.generation)) == [now]
        assert_ours_is_gone(site)
        assert site.live(site.vms[0]) == now
        assert thaws(site) >= 0
    good(end)
    unmet = [kind for kind in MOMENTS if not any(moment.startswith(kind) for moment in reached)]
    assert unmet == []
    site.assert_nothing_left(users=[USERS])
    assert [note.moref for note in site.machines()[1].snapshots] == [theirs._moId]
    assert site.live(site.vms[1]) == others


def test_what_a_user_made_on_top_stays(site: Site, commands: Mortals, admin: Client) -> None:
    """A snapshot of a user's that stands on ours survives ours, with the user's data."""
    assert commands.run("agent", "backup", die_at="before a read").killed
    mine = snapshot(admin.vm(0))
    site.simulator.write(site.vms[0], 0, b"after the user's snapshot")
    now = site.live(site.vms[0])
    assert len(site.machines()[0].snapshots) == 2
    good(commands.run("agent", "reap"))
    assert [note.moref for note in site.machines()[0].snapshots] == [mine._moId]
    assert_ours_is_gone(site, users=1)
    assert site.live(site.vms[0]) == now


def test_killed_while_vcenter_makes_the_snapshot(site: Site, commands: Mortals) -> None:
    """The task goes on without us; the reaper waits for it and removes what it made."""
    site.simulator.slow_tasks("CreateSnapshot_Task", 0.5)
    with site.line.start("agent", "backup") as process:
        until(lambda: any(c.method == "CreateSnapshot_Task" for c in site.simulator.calls()))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Ledger(make_state_folder(site.state).ledger) as ledger:
        assert [effect.kind for effect in ledger.open_effects()] == ["freeze", "snapshot"]
    good(commands.run("agent", "reap"))
    assert thaws(site) == 0
    site.assert_nothing_left()
