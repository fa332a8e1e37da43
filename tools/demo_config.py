"""The demo's configuration: the annotated example, a few of its lines changed as by an editor.

Decides which lines; what they mean stands in the example.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vcsim import Simulator

MOUNT: Final = "backups"
SESSIONS: Final = "sessions"
# Looks at everything in each run, so that the first lie is found.
_CAREFUL_JOB: Final = """
[jobs.careful]
select = { names = ["db01"] }
change_tracking = { audit = { probability = 1, runs = 1 } }
"""
_HEADING: Final = re.compile(r"\[+([^\]]+)\]+$")


def write_config(example: str, folder: Path, simulator: Simulator) -> Path:
    """`backpoint.toml` in `folder`, and the file with the vCenter's password beside it.

    Raises RuntimeError where the example has no such line.
    """
    password = folder / "vcenter.password"
    password.touch(mode=0o600)
    password.write_text(f"{simulator.password}\n")
    (datastore,) = simulator.datastores().items()
    lines = {
        ".state": 'state = "state"',
        "repository.path": 'path = "repository"',
        "repository.credential": 'credential = "agent.credential"',
        "vcenters.main.address": f'address = "{simulator.host}:{simulator.port}"',
        "vcenters.main.user": f'user = "{simulator.user}"',
        "vcenters.main.password": f'password = {{ file = "{password.name}" }}',
        "vcenters.main.ca_file": f'ca_file = "{simulator.ca_file.relative_to(folder)}"',
        "jobs.nightly.unfit_disks": 'unfit_disks = "skip"',
        "jobs.nightly.transports": 'transports = ["https", "export"]',
        "jobs.nightly.exclude.names": 'names = ["tmp-*"]',
        # As an NFS datastore would be that is mounted here too.
        "transports.datastores.nfs01": f'{datastore[0]} = "{datastore[1].relative_to(folder)}"',
        # The simulated hosts reach what they mount by its path on this machine.
        "live.address": 'address = "127.0.0.1"',
        "live.path": f'path = "{folder / MOUNT}"',
        "live.folder": f'folder = "{folder / MOUNT}"',
        "live.sessions": f'sessions = "{folder / SESSIONS}"',
    }
    path = folder / "backpoint.toml"
    path.write_text(_edited(example, lines) + _CAREFUL_JOB)
    return path


def _edited(example: str, lines: dict[str, str]) -> str:
    """The line of each key (table.key) is replaced, also where it is commented out."""
    table, edited, left = "", [], dict(lines)
    for line in example.splitlines():
        if heading := _HEADING.match(line):
            table = heading[1]
        key = f"{table}.{line.removeprefix('#').partition(' = ')[0]}"
        edited.append(left.pop(key, line))
    if left:
        raise RuntimeError(f"the example has no line for {', '.join(left)}")
    return "\n".join(edited) + "\n"
