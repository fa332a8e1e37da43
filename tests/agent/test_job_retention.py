"""A job's rules: applied to what it has just backed up, and by `agent prune`; never to more."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_site import Site, running_site
from backpoint_agent.commands import prune
from backpoint_agent.jobs import retention
from backpoint_agent.jobs.retention import rules_of_machines
from backpoint_agent.jobs.run_record import RunRecord
from backpoint_agent.report.mail_text import mail_body
from backpoint_agent.report.record_form import decode_run
from backpoint_agent.report.summary import print_summary
from backpoint_repo.errors import StoreReadOnly, UsageError
from backpoint_repo.retention.removal import Removal
from backpoint_repo.retention.rules import Rules
from small_repository import back_up
from synthetic_disk import random_disk

NAMES = [f"DC0_C0_RP0_VM{number}" for number in range(2)]
DAY = 86400.0


def job(name: str, vms: list[str], rules: str = "") -> str:
    table = f"[jobs.{name}.retention]\n{rules}\n" if rules else ""
    return f'[jobs.{name}]\nselect = {{ names = {vms} }}\ntransports = ["https"]\n{table}'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), vms=2) as ready:
        yield ready


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two VMs with empty disks."""
    with running_site(tmp_path, vms=2) as ready:
        yield ready


def nightly_runs(site: Site, runs: int, job: str = "nightly") -> list[RunRecord]:
    """One a day."""
    records = []
    for _ in range(runs):
        records.append(site.run(job))
        site.clock.ahead += DAY
    return records


def counts(site: Site) -> Counter[str]:
    return Counter(point.vm for point in site.points())


def test_a_run_removes_what_its_rules_do_not_keep(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of its own VMs; the record, the summary and the mail tell of it."""
    site.configure(job("nightly", NAMES, "keep_last = 2"))
    other = back_up(site.repository, "by hand", random_disk(1 << 13, 1)).vm
    back_up(site.repository, other, random_disk(1 << 13, 2))
    first, second, third = nightly_runs(site, 3)
    assert counts(site) == {NAMES[0]: 2, NAMES[1]: 2, other: 2}
    assert first.removed == second.removed == ()
    assert [vm for vm, _ in third.removed] == NAMES
    assert third.good
    assert decode_run(json.loads(json.dumps(third.record()))).removed == third.removed
    assert "DC0_C0_RP0_VM0: 1 point\n" in mail_body(third)
    print_summary(third, as_json=False)
    assert capsys.readouterr().out.endswith(", 2 old points removed\n")
    site.assert_nothing_left()


def test_a_vm_of_two_jobs_loses_what_both_give_up(site: Site) -> None:
    """Whichever ran; where one has no rules, nothing."""
    jobs = job("nightly", NAMES, "keep_last = 1") + job("weekly", NAMES[:1], "keep_daily = 3")
    site.configure(jobs)
    nightly_runs(site, 4)
    assert counts(site) == {NAMES[0]: 3, NAMES[1]: 1}
    site.configure(job("nightly", NAMES, "keep_last = 1") + job("weekly", NAMES[:1]))
    nightly_runs(site, 2)
    assert counts(site) == {NAMES[0]: 5, NAMES[1]: 1}


def test_without_the_right_to_delete_a_run_is_good_and_warns(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.configure(job("nightly", NAMES, "keep_last = 1"))

    def refused(*_: object) -> Removal:
        raise StoreReadOnly("no point can be removed without the right to delete: no")

    monkeypatch.setattr(retention, "apply_prune", refused)
    record = nightly_runs(site, 2)[1]
    assert record.good
    assert record.removed == ()
    assert "right to delete" in record.warnings[-1]
    assert counts(site) == dict.fromkeys(NAMES, 2)


def test_agent_prune_does_it_at_once(site: Site) -> None:
    """With --dry-run it only shows; VMs that no job with rules takes are left alone."""
    site.configure(job("nightly", NAMES))
    site.clock.ahead = -9 * DAY  # or the command would see points in the future
    nightly_runs(site, 3)
    site.configure(job("nightly", NAMES[:1], "keep_last = 1"))
    said = site.line.run("agent", "prune", "--dry-run")
    assert said.out.endswith("2 points would be removed, 1 kept\n")
    assert counts(site) == dict.fromkeys(NAMES, 3)
    record = site.line.run("agent", "prune", "nightly", "--json").record
    assert (record["removed"], len(record["points"])) == (2, 3)
    assert counts(site) == {NAMES[0]: 1, NAMES[1]: 3}
    site.assert_nothing_left()


def test_agent_prune_wants_rules(shared: Site) -> None:
    settings = shared.configure(job("nightly", NAMES, "keep_last = 1") + job("weekly", NAMES))
    assert [one.name for one in prune.jobs_with_rules([], settings)] == ["nightly"]
    for names, said in ((["monthly"], "no job 'monthly'"), (["weekly"], "keeps every point")):
        with pytest.raises(UsageError, match=said):
            prune.jobs_with_rules(names, settings)
    with pytest.raises(UsageError, match="every point is kept"):
        prune.jobs_with_rules([], shared.configure(job("nightly", NAMES)))


def test_rules_are_of_one_vcenter(shared: Site) -> None:
    """Another vCenter's job may have the same patterns: it takes other VMs."""
    machines = shared.machines()
    text = "keep_within = '14d'\nkeep_hourly = 2"
    settings = shared.configure(job("nightly", ["*"], text))
    account = settings.vcenters["vc1"]
    rules = rules_of_machines(settings, account, machines)
    assert rules == {one.identity: [Rules(hourly=2, within_s=14 * DAY)] for one in machines}
    elsewhere = account.model_copy(update={"name": "vc2"})
    assert rules_of_machines(settings, elsewhere, machines) == {}
    hindered = [replace(one, template=True) for one in machines]
    assert rules_of_machines(settings, account, hindered) == {}
