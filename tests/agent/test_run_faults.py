"""What can go wrong in the run of a VM: each fault ends in a whole point or none, a word for the
user, and nothing of ours left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backpoint_agent.ledger import Ledger
from backpoint_agent.running.outcome import MachineOutcome
from machine_runs import Bench, running_bench

MIB = 1 << 20


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path) as ready:
        yield ready


def points(bench: Bench) -> int:
    return len(bench.repository.catalog.refresh())


# Quiescing and snapshots


def test_prefer_falls_back_to_crash_consistent(bench: Bench) -> None:
    """And the point says so."""
    bench.simulator.fault("CreateSnapshot_Task", "ApplicationQuiesceFault")
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert outcome.consistency == "crash"
    assert any("crash-consistent only" in text for text in bench.point(outcome).warnings)
    bench.assert_nothing_left()


def test_require_makes_no_point(bench: Bench) -> None:
    """Quiescing is tried as often as the job says, then the run fails."""
    bench.simulator.fault("CreateSnapshot_Task", "ApplicationQuiesceFault", count=2)
    quiesce = {"policy": "require", "retries": 1, "retry_after_s": 0.1}
    outcome = bench.run(bench.job(quiesce=quiesce))
    assert not outcome.good
    assert outcome.temporary
    assert points(bench) == 0
    bench.assert_nothing_left()
    again = bench.run(bench.job(quiesce=quiesce))
    assert again.consistency == "filesystem"


def test_without_tools_nothing_can_be_quiesced(bench: Bench) -> None:
    """Required: no point, and the reason names VMware Tools."""
    bench.simulator.guest(bench.vm, tools=False)
    outcome = bench.run(bench.job(quiesce={"policy": "require"}))
    assert "VMware Tools" in outcome.error
    assert bench.run().consistency == "crash"
    bench.assert_nothing_left()


def test_a_snapshot_limit(bench: Bench) -> None:
    """vCenter's own words reach the user."""
    bench.simulator.fault("CreateSnapshot_Task", "TooManySnapshotLevels", count=-1)
    outcome = bench.run()
    assert not outcome.good
    assert outcome.error
    bench.assert_nothing_left()


def test_users_snapshots_stay(bench: Bench) -> None:
    """Those that were there before, and the one that is made while we read."""
    bench.user_snapshot("before")
    outcome = bench.run()
    assert not outcome.good
    assert "https" in outcome.error  # a disk under a user's snapshot is a delta: no flat file
    assert bench.snapshots() == ["before"]
    bench.assert_nothing_left()


def test_a_snapshot_that_will_not_go_is_the_reapers(bench: Bench) -> None:
    """The point is good, an alarm is raised, and the next run removes it."""
    bench.simulator.fault("RemoveSnapshot_Task", "FileLocked", count=3)
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert any("remove our snapshot" in alarm for alarm in outcome.alarms)
    with Ledger(bench.state.ledger) as ledger:
        assert [effect.kind for effect in ledger.open_effects()] == ["snapshot"]
    after = bench.run()
    assert after.good
    assert any("left over" in warning for warning in after.warnings)
    bench.assert_nothing_left()


def test_consolidation_is_done(bench: Bench) -> None:
    """A removal that leaves a delta disk is followed by a consolidation."""
    bench.simulator.leave_delta(bench.vm)
    outcome = bench.run()
    assert outcome.good
    assert outcome.alarms == ()
    bench.assert_nothing_left()


def test_a_consolidation_that_fails_is_an_alarm(bench: Bench) -> None:
    """The point stands all the same."""
    bench.simulator.leave_delta(bench.vm)
    bench.simulator.fault("ConsolidateVMDisks_Task", "FileLocked", count=-1)
    outcome = bench.run()
    assert outcome.good
    assert any("nothing is left" in alarm for alarm in outcome.alarms)


# Scripts


def scripted(bench: Bench, **changes: object) -> dict[str, object]:
    secret = bench.folder / "guest-password"
    secret.touch(0o600)
    secret.write_text("Guest-secret-1\n")
    return {
        "policy": "prefer",
        "retries": 0,
        "guest": {"user": "backup", "password": {"file": secret}},
        "pre_freeze": {"program": "/bin/freeze", "limit_s": 5},
        "post_thaw": {"program": "/bin/thaw", "limit_s": 5},
        **changes,
    }


def test_scripts_stand_around_the_snapshot(bench: Bench) -> None:
    """Pre-freeze before it, post-thaw after it and before the reading."""
    bench.simulator.forget_calls()
    assert bench.run(bench.job(quiesce=scripted(bench))).good
    wanted = ("StartProgramInGuest", "CreateSnapshot_Task", "RemoveSnapshot_Task")
    order = [call.method for call in bench.simulator.calls() if call.method in wanted]
    assert order == [
        "StartProgramInGuest",
        "CreateSnapshot_Task",
        "StartProgramInGuest",
        "RemoveSnapshot_Task",
    ]
    bench.assert_nothing_left()


def test_a_pre_freeze_script_that_fails(bench: Bench) -> None:
    """Required: no point, and the guest is thawed; else a warning."""
    bench.simulator.guest_program(bench.vm, "/bin/freeze", exit_code=3)
    outcome = bench.run(bench.job(quiesce=scripted(bench)))
    assert "pre-freeze" in outcome.error
    programs = [c for c in bench.simulator.calls() if c.method == "StartProgramInGuest"]
    assert len(programs) == 2
    lenient = {"program": "/bin/freeze", "limit_s": 5, "required": False}
    outcome = bench.run(bench.job(quiesce=scripted(bench, pre_freeze=lenient)))
    assert outcome.good
    assert any("ended with 3" in warning for warning in outcome.warnings)
    bench.assert_nothing_left()


def test_a_guest_that_does_not_thaw_is_an_alarm(bench: Bench) -> None:
    """The point is good; the ledger keeps it for the reaper."""
    bench.simulator.guest_program(bench.vm, "/bin/thaw", exit_code=1)
    outcome = bench.run(bench.job(quiesce=scripted(bench)))
    assert outcome.good
    assert any("frozen" in alarm for alarm in outcome.alarms)
    with Ledger(bench.state.ledger) as ledger:
        assert [effect.kind for effect in ledger.open_effects()] == ["freeze"]


def test_a_script_that_hangs_has_a_limit(bench: Bench) -> None:
    """And its name is in the message."""
    bench.simulator.guest_program(bench.vm, "/bin/freeze", seconds=-1)
    hung = {"program": "/bin/freeze", "limit_s": 1}
    outcome = bench.run(bench.job(quiesce=scripted(bench, pre_freeze=hung)))
    assert "/bin/freeze" in outcome.error
    assert "1 s" in outcome.error
    bench.assert_nothing_left()


# Change tracking


def test_every_doubt_is_a_full(bench: Bench) -> None:
    """A reset, wrong answers of every kind: compared whole, with the reason, and right."""
    assert bench.run().good
    kinds = ("discontinuous", "zero", "negative", "short", "beyond", "outside")
    breaks: list[Callable[[], None]] = [
        lambda: bench.simulator.reset_cbt(bench.vm),
        *(lambda kind=kind: bench.simulator.wrong_areas(kind) for kind in kinds),
    ]
    for number, break_it in enumerate(breaks):
        break_it()
        bench.simulator.write(bench.vm, MIB + number * 5000, bytes([number + 1]) * 3000)
        outcome = bench.run()
        bench.assert_holds(outcome, bench.content())
        assert [disk.how for disk in outcome.disks] == ["compare"], number
        assert any("read in full" in text for text in bench.point(outcome).warnings)
    bench.assert_nothing_left()


def test_answers_in_many_odd_parts(bench: Bench) -> None:
    """Few areas an answer, unaligned, with false positives: all of them are asked for."""
    assert bench.run().good
    bench.simulator.area_cap(2)
    bench.simulator.granularity(65536, unaligned=True)
    bench.simulator.false_positives(7)
    for at in range(0, 6 * MIB, MIB // 2):
        bench.simulator.write(bench.vm, at + 12345, b"n" * 700)
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert [disk.how for disk in outcome.disks] == ["changed"]
    bench.assert_nothing_left()


def test_a_disk_that_grew(bench: Bench) -> None:
    """Is read whole, and its new end is in the point."""
    assert bench.run().good
    bench.simulator.extend(bench.vm, 8 * MIB)
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert outcome.size == 8 * MIB
    assert [disk.how for disk in outcome.disks] == ["compare"]
    bench.assert_nothing_left()


def test_disks_that_come_go_and_change_places(bench: Bench) -> None:
    """Each point holds the disks of its moment, whatever keys they had before."""
    assert bench.run().good
    key = bench.add_disk(2 * MIB, b"second")
    both = bench.run()
    bench.assert_holds(both, bench.content(), bench.content(key))
    first_key = min(disk.device_key for disk in bench.machine().disks)
    bench.simulator.swap_disks(bench.vm, first_key, key)
    swapped = bench.run()
    bench.assert_holds(swapped, *(bench.content(disk.device_key) for disk in bench.machine().disks))
    bench.simulator.remove_disk(bench.vm, key)
    one = bench.run()
    bench.assert_holds(one, bench.content(bench.machine().disks[0].device_key))
    bench.assert_nothing_left()


def test_a_host_crash_resets_tracking(bench: Bench) -> None:
    """The next run compares everything."""
    assert bench.run().good
    bench.simulator.crash(bench.vm)
    bench.simulator.write(bench.vm, 0, b"after the crash")
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert outcome.consistency == "off"
    assert [disk.how for disk in outcome.disks] == ["compare"]
    bench.assert_nothing_left()


def test_no_privilege_for_changed_areas(bench: Bench) -> None:
    """The privilege is named; it is not taken for a lost change id."""
    assert bench.run().good
    bench.simulator.refuse_privilege("VirtualMachine.Provisioning.DiskRandomRead")
    outcome = bench.run()
    assert "VirtualMachine.Provisioning.DiskRandomRead" in outcome.error
    bench.assert_nothing_left()


def test_without_tracking_everything_is_compared(bench: Bench) -> None:
    """The job says off; the VM's own setting is left alone."""
    job = bench.job(change_tracking={"policy": "off"})
    assert bench.run(job).good
    bench.simulator.write(bench.vm, MIB, b"new")
    outcome = bench.run(job)
    bench.assert_holds(outcome, bench.content())
    assert [disk.how for disk in outcome.disks] == ["compare"]
    assert not bench.machine().change_tracking
    bench.assert_nothing_left()


# Disks that no snapshot covers


@pytest.mark.parametrize("odd", ["independent", "rdm", "shared", "encrypted"])
def test_unfit_disks(bench: Bench, odd: str) -> None:
    """Refused, or left out and told, as the job says."""
    before = bench.content()
    bench.add_unfit_disk(odd)
    refused = bench.run()
    assert not refused.good
    assert refused.error
    assert bench.snapshots() == []
    skipping = bench.run(bench.job(unfit_disks="skip"))
    bench.assert_holds(skipping, before)
    point = bench.point(skipping)
    assert any("is left out" in text for text in point.warnings)
    assert len(point.capture["left_out"]) == 1
    bench.assert_nothing_left()


# vCenter and the VM


def test_the_session_expires_again_and_again(bench: Bench) -> None:
    """Nobody notices."""
    bench.watcher.on_phase = lambda _: bench.simulator.expire_sessions()
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    bench.assert_nothing_left()


def test_connections_break_while_asking(bench: Bench) -> None:
    """What only asks is asked again."""
    assert bench.run().good
    bench.simulator.drop_connections(2, "QueryChangedDiskAreas")
    bench.simulator.garbage(1, "QueryChangedDiskAreas")
    outcome = bench.run()
    bench.assert_holds(outcome, bench.content())
    assert [disk.how for disk in outcome.disks] == ["changed"]
    bench.assert_nothing_left()


def test_the_answer_to_a_snapshot_is_lost(bench: Bench) -> None:
    """It was made all the same: it is found by its name and removed, and never made twice."""
    bench.simulator.drop_connections(1, "CreateSnapshot_Task", after_effect=True)
    outcome = bench.run(bench.job(quiesce={"policy": "off"}))
    assert not outcome.good
    assert outcome.temporary
    bench.assert_nothing_left()
    made = [c for c in bench.simulator.calls() if c.method == "CreateSnapshot_Task"]
    assert len(made) == 1


def test_the_machine_disappears(bench: Bench) -> None:
    """Before the run, and in the middle of it."""

    def destroy(phase: str) -> None:
        if phase == "reading":
            bench.destroy()

    bench.watcher.on_phase = destroy
    outcome = bench.run()
    assert not outcome.good
    with Ledger(bench.state.ledger) as ledger:
        assert ledger.open_effects() == []


def test_a_read_error_makes_no_point(bench: Bench) -> None:
    """The disk and the offset are named, and the next run is whole."""
    bench.simulator.read_fault("-flat.vmdk", 3 * MIB, count=50)
    outcome = bench.run()
    assert not outcome.good
    assert points(bench) == 0
    bench.assert_nothing_left()
    bench.simulator.clear()
    bench.assert_holds(bench.run(), bench.content())


def test_a_stop_while_reading(bench: Bench) -> None:
    """No point, the snapshot is gone."""
    bench.watcher.on_phase = lambda phase: (
        bench.stop.request("a test") if phase == "reading" else None
    )
    outcome = bench.run()
    assert outcome.status == "stopped"
    assert "a test" in outcome.error
    assert points(bench) == 0
    bench.assert_nothing_left()


def test_a_stop_while_the_snapshot_is_made(bench: Bench) -> None:
    """The task is cancelled; what it may have made is removed."""
    bench.simulator.hang_tasks("CreateSnapshot_Task")
    timer = threading.Timer(0.5, lambda: bench.stop.request("a test"))
    timer.start()
    outcome = bench.run()
    timer.join()
    assert outcome.status == "stopped"
    bench.simulator.release_tasks()
    bench.stop_again()
    assert bench.run().good
    bench.assert_nothing_left()


def test_a_question_is_answered(bench: Bench) -> None:
    """By the job's policy, and told."""
    bench.simulator.question(
        bench.vm, "msg.uuid.altered: moved or copied?", ["I moved it", "I copied it"],
        on_task="CreateSnapshot_Task",
    )  # fmt: skip
    questions = [{"text": "*moved or copied*", "answer": "I copied it"}]
    outcome = bench.run(bench.job(questions=questions))
    assert outcome.good
    assert bench.simulator.answers(bench.vm) == ["1"]
    assert any("answered" in alarm for alarm in outcome.alarms)
    bench.assert_nothing_left()


def test_an_unanswered_question_is_an_alarm_and_has_a_limit(bench: Bench) -> None:
    """Nothing waits for ever."""
    bench.simulator.question(bench.vm, "really?", ["yes", "no"], on_task="CreateSnapshot_Task")
    outcome = bench.run(bench.job(quiesce={"policy": "prefer", "retries": 0, "limit_s": 2}))
    assert any("no policy answers" in alarm for alarm in outcome.alarms)


def test_two_agents_on_one_machine(bench: Bench, tmp_path: Path) -> None:
    """The second waits as long as it may, then says who has it."""
    inner: list[MachineOutcome] = []

    def second(phase: str) -> None:
        if phase == "reading" and not inner:
            bench.watcher.on_phase = None
            inner.append(bench.run())

    bench.watcher.on_phase = second
    outer = bench.run()
    assert outer.good
    assert not inner[0].good
    assert inner[0].temporary
    assert "another agent works on it" in inner[0].error
    bench.assert_nothing_left()


def test_another_agents_snapshot(bench: Bench) -> None:
    """An agent with another state folder is noticed by its snapshot, which is left alone."""
    bench.other_agents_snapshot()
    outcome = bench.run()
    assert not outcome.good
    assert outcome.temporary
    assert len(bench.snapshots()) == 1
