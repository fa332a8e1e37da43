"""The steps that fill the repository, and what each must prove: a full, an incremental, a lie of
change tracking, an agent that is killed.
"""

from __future__ import annotations

import time
from pathlib import Path

from tools.busy_disk import last_write
from tools.demo_config import SESSIONS, write_config
from tools.play import Play

from guest_disks import change_data_disk, mounted

NOTE = Path("home/alice/docs/today.txt")
_MIB = 1 << 20
_USER_SNAPSHOT = "before the update"
_WRONG_USE = 2
# What `agent status` ends with where somebody has to look.
_ALARM = 7
_SNAPSHOT_LIMIT_S = 60
# Long enough to be killed in, short enough to wait for where the demo is interrupted.
_LATE_S = 10


def make_repository(play: Play) -> None:
    stage = play.stage
    with stage.step("a repository, and a key for the agent: it can back up and not read"):
        stage.run("backpoint", "init", "--recovery-key", play.folder / "recovery.key")
        credential = play.folder / "agent.credential"
        stage.run("backpoint", "key", "export-agent", "-o", credential)


def configure(play: Play) -> None:
    """The example, edited; a mistake in it is named by its line."""
    stage, example = play.stage, play.folder / "example.toml"
    with stage.step("the configuration: the annotated example, with a few lines changed"):
        printed = stage.run("backpoint", "agent", "config-check", "--print-example", shown_lines=0)
        example.write_text(printed)
        config = write_config(printed, play.folder, play.vcenter.simulator)
        only_new = ("--changed-group-format=%>", "--unchanged-group-format=")
        stage.run("diff", *only_new, example, config, code=1, shown_lines=20)
        play.agent("config-check")
    with stage.step("a mistake is named by its line and key"):
        wrong = play.folder / "wrong.toml"
        wrong.write_text(config.read_text().replace('"0 22 * * *"', '"0 25 * * *"'))
        stage.run_refused("backpoint", "agent", "config-check", "-c", wrong, code=_WRONG_USE)


def look_around(play: Play) -> None:
    stage = play.stage
    with stage.step("what the vCenter has, what cannot be backed up and why, what a run would do"):
        play.agent("inventory")
        said = play.agent("backup", "nightly", "--dry-run")
        stage.require("independent" in said, "the independent disk is not told of")
        taken = [play.vcenter.snapshots(vm) for vm in ("web01", "web02", "db01")]
        stage.require(not any(taken), "a dry run has made a snapshot")


def back_up_first(play: Play) -> None:
    """All VMs in full. db01's guest writes all the time."""
    stage, busy = play.stage, play.vcenter.busy
    with stage.step("first backup, over https; the guest of db01 writes all the time"):
        before = busy.count
        with busy.writing():
            play.back_up("nightly")
    with stage.step("mount the repository: each point is the VM's disks, byte for byte"):
        play.mount.mkdir()
        stage.run("backpoint", "mount", play.mount, "--live", play.folder / SESSIONS)
        stage.require(play.is_mounted, f"{play.mount} is not a mount point")
        point = play.point("web01").parent
        inside = ("-path", "*/guest/*", "-prune", "-o")
        stage.run("find", point, *inside, "-printf", r"%y %11s  %P %l\n", shown_lines=20)
        play.compare("web01")
        play.compare("web02")
        last = last_write(play.point("db01") / "disk0-flat.vmdk")
        stage.require(before <= last < busy.count, "the point is of no moment of the run")
        stage.note(
            f"db01 is of one moment: all {last + 1} writes up to it and none of the"
            f" {busy.count - last - 1} after"
        )


def let_a_day_pass(play: Play) -> None:
    stage, vcenter = play.stage, play.vcenter
    with stage.step("a day passes in the guest"):
        with mounted(vcenter.disk("web01", 0).resolve()) as root:
            (root / NOTE).write_text("written between the first backup and the second\n")
        day = change_data_disk(vcenter.disk("web01", 1).resolve(), 1)
        stage.note(f"on web01's first disk: {NOTE} added")
        changed = len(day.appended) + len(day.rewritten)
        stage.note(
            f"on its second: {changed} files changed, {len(day.deleted)} deleted,"
            f" {len(day.added)} added, {day.bytes_written / _MIB:.1f} MiB written"
        )


def back_up_changes(play: Play) -> None:
    """Only what changed is read, and nothing is missing for that."""
    stage = play.stage
    with stage.step("second backup: what change tracking names is read, no more"):
        with play.vcenter.busy.writing():
            play.back_up("nightly")
        facts = play.facts("web01")
        read, size = facts["read"], sum(disk["size"] for disk in facts["disks"])
        stage.note(f"web01: {read / _MIB:.0f} MiB read of {size / _MIB:.0f} MiB")
        stage.require(read < size // 5, "it has read too much for an incremental")
        play.compare("web01")
        last_write(play.point("db01") / "disk0-flat.vmdk")


def catch_a_lie(play: Play) -> None:
    """A change that is not reported is in the point all the same."""
    stage, busy = play.stage, play.vcenter.busy
    with stage.step("change tracking lies: a change is not reported; the audit finds it"):
        busy.write_unreported()
        said = play.back_up("careful")
        stage.require("ALARM" in said, "nobody was alarmed")
        play.agent("status", code=_ALARM)
        play.compare("db01")
        last = last_write(play.point("db01") / "disk0-flat.vmdk")
        stage.require(last == busy.count - 1, "the unreported write is not in the point")
        play.vcenter.simulator.clear()


def kill_and_reap(play: Play) -> None:
    """What is left of a killed agent goes; the user's own snapshot stays."""
    stage, vcenter = play.stage, play.vcenter
    vcenter.take_snapshot("db01", _USER_SNAPSHOT)
    with stage.step(f"kill -9 while the agent reads; the user has a snapshot {_USER_SNAPSHOT!r}"):
        vcenter.simulator.slow_calls(_LATE_S, 1, "GET /nfc")
        backup = ("backpoint", "agent", "backup", "--vm", "db01")
        with stage.running(*backup) as agent:
            deadline = time.monotonic() + _SNAPSHOT_LIMIT_S
            while not _reads(play):
                stage.require(time.monotonic() < deadline, "the agent made no snapshot")
                stage.require(agent.poll() is None, "the agent ended by itself")
                time.sleep(0.02)
            agent.kill()
        vcenter.simulator.clear()
        left = vcenter.snapshots("db01")
        stage.note(f"snapshots of db01: {', '.join(left)}")
        stage.require(len(left) == 2, "the killed agent left no snapshot")
    with stage.step("reap what is ours and nothing else"):
        play.agent("reap", "--dry-run")
        stage.require(vcenter.snapshots("db01") == left, "a dry run has removed something")
        play.agent("reap")
        there = vcenter.snapshots("db01")
        stage.note(f"snapshots of db01: {', '.join(there)}")
        stage.require(there == [_USER_SNAPSHOT], "not exactly ours was removed")
        vcenter.remove_snapshots("db01")
    with stage.step("the next run is as if nothing had happened"):
        play.back_up("careful")
        play.compare("db01")
        stage.require(not vcenter.snapshots("db01"), "a snapshot was left")


def _reads(play: Play) -> bool:
    return any(call.method == "GET /nfc" for call in play.vcenter.simulator.calls())
