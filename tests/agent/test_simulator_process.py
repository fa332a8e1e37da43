"""The simulator as a process: several, large, used by many at once, ended with its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vcsim import running_simulator
from vcsim.client import connected, drop, snapshot, until

MIB = 1 << 20


def test_two_vcenters(tmp_path: Path) -> None:
    """A second vCenter has its own identity, and may have VMs of the same name."""
    other = "11111111-2222-3333-4444-555555555555"
    with (
        running_simulator(tmp_path / "one") as one,
        running_simulator(tmp_path / "two", instance_uuid=other) as two,
        connected(one) as first,
        connected(two) as second,
    ):
        assert second.content.about.instanceUuid == other
        assert first.content.about.instanceUuid != other
        assert first.vm().name == second.vm().name


def test_two_hundred_vms(tmp_path: Path) -> None:
    """Many VMs are spread over hosts and datastores, and their snapshots cost no space."""
    options = {"vms": 200, "hosts": 4, "datastores": 3}
    with running_simulator(tmp_path / "s", **options) as simulator, connected(simulator) as client:
        vms = [client.vm(n) for n in range(2)]
        assert len(simulator.vms()) == 200
        per_host = [len(h.vm) for h in client.cluster.host]
        assert per_host == [50] * 4
        assert {len(d.vm) for d in client.datacenter.datastore} == {66, 67}
        simulator.add_disk(vms[0]._moId, 1 << 40)
        snapshot(vms[0])
        used = sum(f.stat().st_blocks * 512 for f in tmp_path.rglob("*") if f.is_file())
        assert used < 32 * MIB


def test_parallel_sessions(tmp_path: Path) -> None:
    """Sessions that work at the same time do not disturb each other."""
    with running_simulator(tmp_path / "s", vms=4) as simulator:

        def cycle(number: int) -> int:
            with connected(simulator) as client:
                vm = client.vm(number)
                for turn in range(5):
                    simulator.write(vm._moId, turn * 512, os.urandom(512))
                    drop(snapshot(vm))
                return len([v.name for v in client.datacenter.vmFolder.childEntity])

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(cycle, range(4))) == [4] * 4


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """The simulator ends when the process that drives it is killed."""
    tests = str(Path(__file__).resolve().parents[1])
    script = (
        "import sys, time; from pathlib import Path; from vcsim import Simulator\n"
        "s = Simulator(Path(sys.argv[1])); print(s._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": tests},
        text=True,
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists())
