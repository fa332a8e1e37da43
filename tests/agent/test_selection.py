"""A job takes the VMs and disks that its words mean, and says why it leaves out any other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpoint_agent.errors import VSphereError
from backpoint_agent.fitness import disk_troubles, remarks, why_not
from backpoint_agent.inventory_names import matches, path_matches, unescape
from backpoint_agent.machine import Machine, SnapshotNote
from backpoint_agent.selection import find_machine, plan_disks, select
from backpoint_agent.settings.model import DiskExcludes, Job, Selection
from backpoint_repo.errors import UsageError
from some_machine import some_disk, some_machine


def _job(select_by: dict[str, Any] | None = None, **keys: Any) -> Job:
    by = {"everything": True} if select_by is None else select_by
    return Job(name="night", select=Selection(**by), **keys)


def _chosen(machines: list[Machine], by: dict[str, Any], **keys: Any) -> list[str]:
    return [machine.name for machine in select(machines, _job(by, **keys)).chosen]


WEB = some_machine(
    "Web01",
    1,
    folder="DC0/vm/Production/web",
    pool="DC0/host/DC0_C0/Resources/Gold/Web",
    cluster="DC0/host/racks/DC0_C0",
    datastores=("ssd-1", "hdd-2"),
    tags=("Tier/gold", "Owner/a/b"),
    attributes={"Cost centre": "4711 ", "Backup": "yes"},
)
DB = some_machine(
    "db01",
    2,
    folder="DC0/vm/Test",
    pool="DC0/host/lonely/Resources",
    cluster="",
    datastores=("hdd-2",),
    tags=("Tier/silver",),
)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ({"names": ("web*",)}, ["Web01"]),
        ({"names": ("DB01",)}, ["db01"]),
        ({"names": ("*",)}, ["db01", "Web01"]),
        ({"names": ("web",)}, []),
        ({"folders": ("production",)}, ["Web01"]),
        ({"folders": ("DC0/vm/Production",)}, ["Web01"]),
        ({"folders": ("DC0/Production/web/",)}, ["Web01"]),
        ({"folders": ("prod*/w?b",)}, ["Web01"]),
        ({"folders": ("Production/we",)}, []),
        ({"folders": ("duction",)}, []),
        ({"folders": ("/",)}, []),
        ({"folders": ("DC0",)}, ["db01", "Web01"]),
        ({"tags": ("tier/gold",)}, ["Web01"]),
        ({"tags": ("SILVER",)}, ["db01"]),
        ({"tags": ("tier/*",)}, ["db01", "Web01"]),
        ({"tags": ("tier",)}, []),
        ({"tags": ("a/b",)}, ["Web01"]),
        ({"datastores": ("ssd-*",)}, ["Web01"]),
        ({"datastores": ("HDD-2",)}, ["db01", "Web01"]),
        ({"clusters": ("dc0_c0",)}, ["Web01"]),
        ({"clusters": ("DC0/racks",)}, ["Web01"]),
        ({"clusters": ("*",)}, ["Web01"]),
        ({"resource_pools": ("gold",)}, ["Web01"]),
        ({"resource_pools": ("DC0_C0/Gold/web",)}, ["Web01"]),
        ({"resource_pools": ("DC0_C0/Resources/Gold",)}, ["Web01"]),
        ({"attributes": ("backup=y*",)}, ["Web01"]),
        ({"attributes": ("cost centre = 4711",)}, ["Web01"]),
        ({"attributes": ("backup=no",)}, []),
        ({"names": ("db*",), "tags": ("gold",)}, ["db01", "Web01"]),
        ({}, []),
    ],
)
def test_each_key_means_what_it_says(by: dict[str, Any], names: list[str]) -> None:
    """Case does not count, paths match by whole parts, and any key is enough."""
    assert _chosen([WEB, DB], by) == names


FROM_BACKUP = some_machine("web (from backup)", 3, folder="DC0/vm/Test", from_backup="7")


@pytest.mark.parametrize(
    "by", [{"everything": True}, {"names": ("web*",)}, {"folders": ("test",)}, {"names": ("*",)}]
)
def test_a_vm_that_runs_from_the_backup_is_left_out_aloud(by: dict[str, Any]) -> None:
    """No pattern means it; it is said among the skipped and among the warnings."""
    selected = select([WEB, DB, FROM_BACKUP], _job(by))
    assert FROM_BACKUP not in selected.chosen
    [left] = selected.skipped
    assert left.machine == FROM_BACKUP
    assert "runs from the backup" in left.reason
    [warning] = selected.warnings
    assert warning.startswith("web (from backup) (vm-3) is left out: ")


def test_a_vm_that_runs_from_the_backup_can_be_meant() -> None:
    """By its exact name, whatever else fits it; an exclusion is the reason where there is one."""
    by = {"names": ("web*", "WEB (from backup)")}
    selected = select([WEB, FROM_BACKUP], _job(by))
    assert [machine.name for machine in selected.chosen] == [FROM_BACKUP.name, WEB.name]
    assert (selected.skipped, selected.warnings) == ((), ())
    job = _job(exclude=Selection(names=("*backup*",)))
    selected = select([WEB, FROM_BACKUP], job)
    assert ["excluded" in left.reason for left in selected.skipped] == [True]
    assert selected.warnings == ()


def test_names_with_brackets_and_escapes_are_taken_as_written() -> None:
    """A name is no pattern if it is somebody's, and folders are shown as vSphere shows them."""
    odd = some_machine("[old] a/b?", 3, folder="DC0/vm/x%2fy%25/z")
    assert _chosen([odd, WEB], {"names": ("[OLD] a/b?",)}) == ["[old] a/b?"]
    assert _chosen([odd, WEB], {"folders": ("x%2Fy%25",)}) == ["[old] a/b?"]
    assert unescape("a%2fb%5Cc%25d%41") == "a/b\\c%d%41"


def test_excludes_say_by_what() -> None:
    """Each VM that matches and is left out comes with its reason."""
    template = some_machine("tpl", 3, template=True)
    job = _job(exclude=Selection(names=("web*",)))
    selected = select([WEB, DB, template], job)
    assert selected.chosen == (DB,)
    assert {left.machine.name: left.reason for left in selected.skipped} == {
        "Web01": "excluded by exclude.names 'web*'",
        "tpl": "a template, and the job takes none",
    }
    with_templates = select([WEB, DB, template], _job(exclude=job.exclude, templates=True))
    assert with_templates.chosen == (DB, template)
    assert not select([WEB], _job(exclude=Selection(everything=True))).chosen


def test_vms_that_cannot_be_backed_up_are_neither_chosen_nor_forgotten() -> None:
    """The job wants them: they are told apart from those it does not want."""
    lost = some_machine("lost", 3, hindrances=("it is orphaned",), connected=False)
    far = some_machine("far", 4, connected=False)
    empty = some_machine("empty", 5, disks=())
    selected = select([lost, far, empty, WEB], _job())
    assert selected.chosen == (WEB,)
    assert {left.machine.name: left.reason for left in selected.hindered} == {
        "lost": "it is orphaned",
        "far": "its host is not connected to vCenter",
        "empty": "it has no disk",
    }
    assert not select([lost], _job({"names": ("x",)})).hindered


def test_a_key_that_fits_no_vm_is_named() -> None:
    """Misspelt selections, excludes and disk excludes alike, each with its key."""
    job = _job(
        {"names": ("web*", "wbe*"), "folders": ("nowhere",)},
        exclude=Selection(tags=("gone",)),
        exclude_disks=(DiskExcludes(vm="nobody", disks=("scsi0:1",)),),
    )
    assert select([WEB], job).warnings == (
        "jobs.night.select.names: no VM matches 'wbe*'",
        "jobs.night.select.folders: no VM matches 'nowhere'",
        "jobs.night.exclude.tags: no VM matches 'gone'",
        "jobs.night.exclude_disks[0].vm: no VM matches 'nobody'",
    )
    assert select([WEB], _job({"names": ("x",)})).warnings[-1] == (
        "jobs.night.select: there is no VM to back up"
    )
    assert select([WEB], _job()).warnings == ()


def test_unknown_tags_matter_only_to_jobs_that_go_by_them() -> None:
    """An exclude by tags is no less dangerous to guess than a selection."""
    silent = some_machine("silent", 3, no_tags="the tagging service answered 503")
    assert select([silent], _job()).chosen == (silent,)
    for job in (_job({"tags": ("x",)}), _job(exclude=Selection(tags=("x",)))):
        with pytest.raises(VSphereError, match=r"night selects by tags.*answered 503"):
            select([silent], job)


def test_two_vms_with_the_same_name_are_both_chosen() -> None:
    """In the order of their age in the inventory."""
    twins = [some_machine("web", number) for number in (10, 9, 11)]
    chosen = select(twins, _job({"names": ("web",)})).chosen
    assert [machine.moref for machine in chosen] == ["vm-9", "vm-10", "vm-11"]


def test_a_vm_is_found_by_name_moref_or_uuid() -> None:
    """An exact name goes before one of other case."""
    upper = some_machine("WEB01", 3)
    machines = [WEB, DB, upper]
    assert find_machine(machines, "Web01") is WEB
    assert find_machine(machines, "DB01") is DB
    assert find_machine(machines, "vm-3") is upper
    assert find_machine(machines, DB.identity.instance.upper()) is DB
    with pytest.raises(UsageError, match="'db1'; there is 'db01'"):
        find_machine(machines, "db1")
    with pytest.raises(UsageError, match="no VM"):
        find_machine([some_machine("x", identity=WEB.identity.__class__("v", ""))], "")


def test_an_ambiguous_name_lists_who_is_meant() -> None:
    """With what tells them apart: folder, moref and instanceUuid."""
    twins = [some_machine("web", 1, folder="DC0/vm/a"), some_machine("web", 2, folder="DC0/vm/b")]
    with pytest.raises(UsageError, match=r"2 VMs are named 'web'.*") as caught:
        find_machine(twins, "web")
    for twin in twins:
        assert f"{twin.moref} in {twin.folder}, instanceUuid {twin.identity.instance}" in str(
            caught.value
        )


def test_disks_are_excluded_by_place_label_and_file() -> None:
    """Also while the VM runs on a delta, and only where the VM matches."""
    files = ["web.vmdk", "web_1-000002.vmdk", "web_2.vmdk", "swap.vmdk"]
    disks = tuple(some_disk(at, file=f"[ds1] web/{name}") for at, name in enumerate(files))
    machine = some_machine("web", disks=disks)
    job = _job(
        exclude_disks=(
            DiskExcludes(vm="db*", disks=("scsi0:0",)),
            DiskExcludes(vm="w*", disks=("SCSI0:2", "[ds1] */web_1.vmdk", "hard disk 4")),
        )
    )
    plan = plan_disks(machine, job)
    assert plan.chosen == disks[:1]
    assert plan.refusal is None
    assert [(item.disk.slot, item.reason, item.wanted) for item in plan.skipped] == [
        ("scsi0:1", "excluded by exclude_disks '[ds1] */web_1.vmdk'", False),
        ("scsi0:2", "excluded by exclude_disks 'SCSI0:2'", False),
        ("scsi0:3", "excluded by exclude_disks 'hard disk 4'", False),
    ]


def test_unfit_disks_are_refused_or_skipped_loudly_as_the_job_says() -> None:
    """An exclude settles it silently; the refusal names disk, reason and both ways out."""
    disks = (some_disk(0), some_disk(1, unfit="a physical RDM"))
    machine = some_machine("web", disks=disks)
    refused = plan_disks(machine, _job())
    assert refused.refusal == (
        "web has disks that no snapshot covers: scsi0:1 (Hard disk 2): a physical RDM; exclude "
        'them with exclude_disks, or set unfit_disks = "skip"'
    )
    skipping = plan_disks(machine, _job(unfit_disks="skip"))
    assert skipping.refusal is None
    assert skipping.chosen == disks[:1]
    assert [(item.reason, item.wanted) for item in skipping.skipped] == [("a physical RDM", True)]
    excluded = plan_disks(machine, _job(exclude_disks=(DiskExcludes(disks=("scsi0:1",)),)))
    assert excluded.refusal is None
    assert not any(item.wanted for item in excluded.skipped)


def test_a_vm_of_which_no_disk_is_left_is_refused() -> None:
    """A point without disks would look like a backup."""
    excluding = _job(exclude_disks=(DiskExcludes(disks=("*",)),))
    assert plan_disks(some_machine(), excluding).refusal == "no disk of web is left to back up"
    unfit = some_machine(disks=(some_disk(unfit="independent"),))
    assert plan_disks(unfit, _job(unfit_disks="skip")).refusal is not None


def test_what_is_told_of_a_vm_before_its_backup() -> None:
    """Old hardware, templates, questions, snapshots, and disks that no snapshot covers."""
    assert why_not(some_machine()) == remarks(some_machine()) == disk_troubles(some_machine()) == []
    machine = some_machine(
        template=True,
        hardware_version=4,
        question="moved or copied?",
        consolidation_needed=True,
        snapshots=(SnapshotNote("snapshot-1", "mine", "", 0.0, 0),),
        disks=(some_disk(unfit="encrypted"),),
    )
    assert why_not(machine) == []
    assert disk_troubles(machine) == ["scsi0:0: encrypted"]
    told = " / ".join(remarks(machine))
    for word in ("template", "change tracking", "moved or copied?", "consolidation", "a snapshot"):
        assert word in told
    assert "host offers no" in remarks(some_machine(change_tracking_supported=False))[0]


names = st.text(max_size=12)


@given(st.lists(names.filter(lambda name: "/" not in name), min_size=1, max_size=5), st.data())
def test_a_folder_is_matched_by_itself_and_by_all_above_it(parts: list[str], data: Any) -> None:
    """Any run of its own parts, written as vCenter keeps them, names a place that holds it."""
    parts = [unescape(part).replace("/", "-") for part in parts]
    path = "/".join(["DC0", "vm", *parts])
    start = data.draw(st.integers(0, len(parts) - 1))
    stop = data.draw(st.integers(start + 1, len(parts)))
    pattern = "/".join(parts[start:stop])
    assert path_matches(path, "DC0", pattern) == bool(pattern.strip("/"))


@given(names, names)
def test_no_pattern_breaks_the_comparison(name: str, pattern: str) -> None:
    """Whatever is written: an answer, and a name always matches itself."""
    matches(name, pattern)
    assert matches(name, name)
    assert matches(name, "*")


@given(
    st.lists(st.sampled_from([WEB, DB, *(some_machine(f"vm{n}", n) for n in range(3, 9))])),
    st.lists(st.sampled_from(["web*", "vm[3-5]", "db01", "*", "x"]), max_size=3),
    st.lists(st.sampled_from(["vm4", "*01", "y"]), max_size=2),
)
def test_every_vm_that_matches_is_accounted_for(
    machines: list[Machine], wanted: list[str], unwanted: list[str]
) -> None:
    """Chosen, skipped and hindered together are what matches, once each."""
    job = _job({"names": tuple(wanted)}, exclude=Selection(names=tuple(unwanted)))
    selected = select(machines, job)
    told = [*selected.chosen, *(left.machine for left in (*selected.skipped, *selected.hindered))]
    expected = [m for m in machines if any(matches(m.name, pattern) for pattern in wanted)]
    assert sorted(m.moref for m in told) == sorted(m.moref for m in expected)
    for machine in selected.chosen:
        assert not any(matches(machine.name, pattern) for pattern in unwanted)
