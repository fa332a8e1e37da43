"""`backpoint agent inventory` shows VMs, what hinders them, and what each job would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backpoint_agent.commands import inventory
from backpoint_agent.errors import CannotConnect, ConfigMistakes, VSphereError
from backpoint_repo.command_parser import CommandParser
from backpoint_repo.errors import KeyFault, UsageError
from vcsim import Simulator

JOBS = """
[jobs.night]
select = { everything = true }
exclude = { names = ["*_VM1"] }
exclude_disks = [{ vm = "nobody*", disks = ["scsi0:9"] }]
transports = ["https"]

[jobs.lenient]
select = { names = ["*_VM1"] }
unfit_disks = "skip"
transports = ["https"]
"""


@pytest.fixture
def config(simulator: Simulator, tmp_path: Path) -> Path:
    """One vCenter, two jobs."""
    return _configure(tmp_path, _vcenter(simulator, tmp_path, "main") + JOBS)


def _vcenter(simulator: Simulator, folder: Path, name: str, password: str = "password") -> str:
    secret = folder / "password"
    secret.write_text(simulator.password)
    secret.chmod(0o600)
    return f"""
[vcenters.{name}]
address = "{simulator.host}:{simulator.port}"
user = "{simulator.user}"
password = {{ file = "{password}" }}
ca_file = "{simulator.ca_file}"
request_limit_s = 2
"""


def _configure(folder: Path, text: str) -> Path:
    path = folder / "backpoint.toml"
    path.write_text(f'state = "state"\n[repository]\npath = "repository"\n{text}')
    return path


def _run(config: Path, *words: str) -> None:
    parser = CommandParser(prog="inventory")
    parser.set_defaults(repo=None, json=False, verbose=False)
    parser.add_argument("-c", "--config", type=Path)
    inventory.add_arguments(parser)
    assert inventory.run(parser.parse_args(["-c", str(config), *words])) == 0


def _records(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_table_shows_every_vm_with_its_jobs(
    simulator: Simulator, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is wrong with a disk; keys that fit nothing are warned of on stderr."""
    vm = simulator.vms()[1]
    simulator.add_disk(vm, 3 << 20, mode="independent_persistent")
    _run(config)
    shown = capsys.readouterr()
    heading, first, second = shown.out.splitlines()
    assert heading.split()[:4] == ["vm", "id", "power", "disks"]
    assert first.split()[:6] == ["DC0_C0_RP0_VM0", simulator.vms()[0], "on", "1", "1.0", "MiB"]
    assert "night" in first
    assert second.split()[:6] == ["DC0_C0_RP0_VM1", vm, "on", "2", "4.0", "MiB"]
    assert "lenient" in second
    assert "night" not in second
    assert "independent" in second
    assert "jobs.night.exclude_disks[0].vm: no VM matches 'nobody*'" in shown.err
    assert f"({vm}): night leaves it out: excluded by exclude.names '*_VM1'" in shown.err
    assert f"({vm}): lenient skips " in shown.err


def test_records_have_one_line_each(
    simulator: Simulator, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With everything a script needs to find the VM again, and each job's verdict."""
    simulator.add_disk(simulator.vms()[0], 1 << 20, kind="rdm-physical")
    _run(config, "--json")
    first, second = _records(capsys)
    assert first["vcenter"] == "main"
    assert first["moref"] == simulator.vms()[0]
    assert first["size"] == 2 << 20
    assert first["tags"] == []
    assert first["cannot_because"] == []
    fit, unfit = first["disks"]
    assert fit["unfit_because"] is None
    assert "RDM" in unfit["unfit_because"]
    assert first["jobs"]["night"]["fails"]
    assert not first["jobs"]["night"]["chosen"]
    assert "physical mode" in first["jobs"]["night"]["because"]
    assert second["jobs"]["lenient"] == {
        "chosen": True,
        "fails": False,
        "because": None,
        "disks": [second["disks"][0]["key"]],
        "skipped_disks": {},
    }
    assert not second["jobs"]["night"]["fails"]


def test_one_jobs_vms_can_be_asked_for(
    simulator: Simulator, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those it takes, and those that match and are left out."""
    _run(config, "--json", "--job", "lenient")
    assert [record["moref"] for record in _records(capsys)] == [simulator.vms()[1]]
    _run(config, "--json", "--job", "night", "--vcenter", "main")
    verdicts = [record["jobs"]["night"]["chosen"] for record in _records(capsys)]
    assert verdicts == [True, False]


def test_names_that_are_not_there_are_wrong_use(config: Path) -> None:
    """Each says what there is."""
    with pytest.raises(UsageError, match="no job 'x'; there are: night, lenient"):
        _run(config, "--job", "x")
    with pytest.raises(UsageError, match="no vCenter 'x'; there are: main"):
        _run(config, "--vcenter", "x")


def test_mistakes_in_the_configuration_are_told_before_anything(tmp_path: Path) -> None:
    """As every command of the agent does."""
    with pytest.raises(ConfigMistakes):
        _run(_configure(tmp_path, "[vcenters.main]\n"))


def test_a_vcenter_that_fails_hides_no_other(
    simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be told is told; the command ends with the failure."""
    down = _vcenter(simulator, tmp_path, "down").replace(f":{simulator.port}", ":1")
    config = _configure(tmp_path, down + _vcenter(simulator, tmp_path, "main"))
    with pytest.raises(CannotConnect):
        _run(config, "--json")
    assert len(_records(capsys)) == 2


def test_a_password_that_cannot_be_read_is_a_failure(simulator: Simulator, tmp_path: Path) -> None:
    """Naming the file, of course not what is in it."""
    config = _configure(tmp_path, _vcenter(simulator, tmp_path, "main", "nowhere"))
    with pytest.raises((KeyFault, VSphereError), match="nowhere"):
        _run(config)


def test_unknown_tags_fail_only_the_job_that_was_asked_for(
    simulator: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others, and the VMs, are shown with a warning."""
    jobs = JOBS + '[jobs.gold]\nselect = { tags = ["gold"] }\ntransports = ["https"]\n'
    config = _configure(tmp_path, _vcenter(simulator, tmp_path, "main") + jobs)
    simulator.http_status(503, -1, "POST /rest")
    _run(config, "--json")
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert json.loads(shown.out.splitlines()[0])["tags"] is None
    assert "job gold selects by tags, and they are not known" in shown.err
    with pytest.raises(VSphereError, match="selects by tags"):
        _run(config, "--job", "gold")
