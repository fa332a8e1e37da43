"""Having one filesystem write what it still keeps in memory, and leaving all others in peace.

`os.sync` would wait for every disk of the machine, and commit journals that other tests keep open.
"""

from __future__ import annotations

from pathlib import Path

from guest_disks.tool import run


def write_back(folder: Path) -> None:
    """All of the filesystem that the folder is on."""
    run("sync", "--file-system", folder)
