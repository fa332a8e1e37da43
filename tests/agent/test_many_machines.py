"""Two hundred VMs in one job, by the installed command: what such a night takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from agent_site import NIGHTLY, Site, running_site
from command_line import COMMAND

VMS = 200
MEMORY_MAX = 300 << 20
"""Bytes. It takes 115 MiB, of which Python and its libraries are 80."""
CPU_MAX_S = 60.0
"""It takes 20: a tenth of a second for each VM."""
REQUESTS_MAX = 40
"""Of vCenter, for each VM. It takes 29: half of them find out the sizes of its files."""

MEASURED = """
import json, resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_maxrss << 10, used.ru_utime + used.ru_stime]))
"""
"""Between pytest and the command: a process begins with the memory of the one that started it."""


def run_measured(site: Site) -> tuple[int, int, float]:
    """Exit code of a backup, its peak memory in bytes, its CPU time in seconds."""
    words = [sys.executable, "-c", MEASURED, str(COMMAND), "agent", "backup", "--json"]
    said = subprocess.run(words, env=site.line.environment(), stdout=subprocess.PIPE, check=True)
    code, memory, cpu_s = json.loads(said.stdout)
    return code, memory, cpu_s


def test_two_hundred_vms(tmp_path: Path) -> None:
    """All have their points, in one session; memory, CPU time and requests are bounded."""
    with running_site(tmp_path, disks=True, vms=VMS, hosts=4, datastores=4) as site:
        site.configure(f"{NIGHTLY}machines_at_once = 8\nper_host = 8\nper_datastore = 8\n")
        contents = Counter(site.live(vm) for vm in site.vms)
        code, memory, cpu_s = run_measured(site)
        calls = Counter(call.method for call in site.simulator.calls())
        print(f"{memory >> 20} MiB, {cpu_s:.1f} s, {calls.total()} requests")
        assert code == 0
        assert memory < MEMORY_MAX
        assert cpu_s < CPU_MAX_S
        assert calls.total() < VMS * REQUESTS_MAX
        assert calls["Login"] == calls["Logout"] == 1
        assert calls["CreateSnapshot_Task"] == calls["RemoveSnapshot_Task"] == VMS
        assert Counter(site.content(point)[0] for point in site.points()) == contents
        assert len(contents) == VMS
        site.assert_nothing_left()
