"""The pace of starts: no limit is ever exceeded, nobody waits for ever, no job overtakes others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_agent.jobs.pace import (
    PATIENCE_S,
    Caps,
    Claim,
    Room,
    Waiting,
    caps_of,
    claim_of,
    next_to_start,
)
from backpoint_agent.settings.model import Job, VCenterSettings
from some_machine import some_disk, some_machine

CAPS = Caps(job=3, host=2, datastore=2, machines=5, connections=8)
STEP_S = 60.0

CLAIMS = st.builds(
    Claim,
    job=st.sampled_from(["nightly", "hourly"]),
    vcenter=st.sampled_from(["vc1", "vc2"]),
    host=st.sampled_from(["esx1", "esx2", ""]),
    datastores=st.frozensets(st.sampled_from(["ds1", "ds2", "ds3"]), max_size=2),
    connections=st.integers(0, 12),
)


def caps_strategy() -> st.SearchStrategy[Caps]:
    few = st.integers(1, 4)
    return st.builds(Caps, job=few, host=few, datastore=few, machines=few, connections=few)


def waiting(claim: Claim, caps: Caps = CAPS, number: int = 1, ready: float = 0.0) -> Waiting:
    return Waiting(claim.job, some_machine(number=number), claim, caps, ready)


def claim(job: str = "nightly", host: str = "esx1", store: str = "ds1", disks: int = 1) -> Claim:
    return Claim(job, "vc1", host, frozenset([store]), disks)


@dataclass
class Play:
    """A line that is played: who may start starts, and the one that has run longest ends."""

    line: list[Waiting]
    now: float = 0.0
    running: list[Waiting] = field(default_factory=list)
    started: list[Waiting] = field(default_factory=list)

    def start_all(self) -> None:
        while item := next_to_start(self.line, [r.claim for r in self.running], self.now):
            self.line.remove(item)
            self.running.append(item)
            self.started.append(item)
            assert_within_limits(self.running)

    def step(self) -> None:
        self.start_all()
        if self.running:
            self.running.pop(0)
        self.now += STEP_S


def taken_by(running: Sequence[Waiting]) -> Counter[Room]:
    taken: Counter[Room] = Counter()
    for item in running:
        taken.update(item.claim.takes())
    return taken


def assert_within_limits(running: Sequence[Waiting]) -> None:
    """As the last of them started: nothing above its own caps, or it is alone there."""
    item = running[-1]
    taken, before = taken_by(running), taken_by(running[:-1])
    for room in item.claim.takes():
        assert taken[room] <= getattr(item.caps, room[0]) or before[room] == 0, room


@given(st.lists(CLAIMS, max_size=30), caps_strategy())
def test_limits_hold_and_all_get_their_turn(claims: list[Claim], caps: Caps) -> None:
    """Whatever waits: no limit is exceeded at any start, and in the end everybody has run once."""
    items = [waiting(claim, caps, number) for number, claim in enumerate(claims)]
    play = Play(list(items))
    for _ in items:
        play.step()
    assert sorted(item.machine.moref for item in play.started) == sorted(
        item.machine.moref for item in items
    )


@given(st.lists(CLAIMS, max_size=20), st.lists(CLAIMS, max_size=8))
def test_nobody_is_passed_over_who_could_start(line: list[Claim], running: list[Claim]) -> None:
    """When nobody may start, each would exceed a limit; who is before the chosen one would too."""
    items = [waiting(claim, number=number) for number, claim in enumerate(line)]
    chosen = next_to_start(items, running, now=1.0)
    before = items if chosen is None else items[: items.index(chosen)]
    taken: Counter[Room] = Counter()
    for other in running:
        taken.update(other.takes())
    for item in before:
        assert any(
            taken[room] and taken[room] + size > getattr(CAPS, room[0])
            for room, size in item.claim.takes().items()
        )


@settings(max_examples=30)
@given(st.integers(2, 30), st.integers(1, 5))
def test_a_wide_vm_is_not_starved_by_others_that_keep_coming(disks: int, at_once: int) -> None:
    """Small VMs come without end; one with many disks, more than there are connections or not,
    starts all the same, and never beside more than the connections allow."""
    caps = replace(CAPS, job=100, host=100, datastore=100, machines=100, connections=8)
    play, numbers = Play([]), count(2)
    wide = waiting(claim(disks=disks), caps, number=1)
    play.line = [waiting(claim(job="hourly"), caps, next(numbers)) for _ in range(8)] + [wide]
    for _ in range(int(PATIENCE_S / STEP_S) + 20):
        small = (next(numbers) for _ in range(at_once))
        play.line += [waiting(claim(job="hourly"), caps, n, play.now) for n in small]
        play.step()
        if wide in play.started:
            return
    raise AssertionError("it never started")


def test_more_disks_than_connections_run_alone() -> None:
    """It starts when nobody has a connection, and nobody starts beside it."""
    wide = waiting(claim(disks=CAPS.connections + 1), number=1)
    small = waiting(claim(), number=2)
    assert next_to_start([wide], [claim()], 0.0) is None
    assert next_to_start([wide], [], 0.0) is wide
    assert next_to_start([small], [wide.claim], 0.0) is None


def test_a_busy_host_holds_up_nobody_else() -> None:
    """The first that fits is started, the others keep their places."""
    full = [claim(host="esx1"), claim(host="esx1")]
    behind = waiting(claim(host="esx2", store="ds2"), number=2)
    assert next_to_start([waiting(claim(host="esx1"), number=1), behind], full, 0.0) is behind


def test_jobs_are_served_in_the_order_they_came() -> None:
    """One job's many VMs do not keep out another's one that came first."""
    first = waiting(claim(job="hourly"), number=1)
    line = [first, *(waiting(claim(), number=number) for number in range(2, 9))]
    assert next_to_start(line, [claim(host="esx2", store="ds2")], 0.0) is first


def test_the_patient_keep_only_what_they_lack() -> None:
    """One that has waited long for its datastore holds up others there, and nobody elsewhere; one
    that waits for its own job's VMs holds up nobody."""
    late = PATIENCE_S + 1
    patient = waiting(claim(store="ds1"), number=1)
    same, other = (
        waiting(claim(job="hourly", host="esx2", store=store), number=2, ready=late)
        for store in ("ds1", "ds2")
    )
    full = [claim(job="x", host="esx3"), claim(job="y", host="esx3")]
    assert next_to_start([patient, other], full, late) is other
    assert next_to_start([patient, same], full, late) is None
    own = [claim(host=host, store=host) for host in ("a", "b", "c")]
    assert next_to_start([patient, same], own, late) is same


def test_who_is_to_wait_before_another_try_waits() -> None:
    """And keeps nobody behind it from starting."""
    later, now = waiting(claim(), number=1, ready=10.0), waiting(claim(), number=2)
    assert next_to_start([later, now], [], 9.0) is now
    assert next_to_start([later, now], [], 10.0) is later


def test_what_a_vm_takes() -> None:
    """A connection for each disk, each of its datastores once, and the limits where they are set:
    at the job, and at the vCenter."""
    disks = (some_disk(0), some_disk(1), some_disk(2, file="[ds2] web/web_2.vmdk"))
    job = Job.model_validate(
        {
            "name": "nightly",
            "select": {"everything": True},
            "limits": {"machines_at_once": 2, "per_host": 3, "per_datastore": 4},
        }
    )
    account = VCenterSettings.model_validate(
        {
            "address": "vc1.example.com",
            "user": "backup",
            "password": {"file": "/password"},
            "machines_at_once": 5,
            "nfc_connections": 6,
        }
    )
    made = claim_of(job, "vc1", some_machine(disks=disks, host="esx1"))
    assert made == Claim("nightly", "vc1", "esx1", frozenset(["ds1", "ds2"]), 3)
    assert caps_of(job, account) == Caps(2, 3, 4, 5, 6)
