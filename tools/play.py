"""What every step of the demo has at hand: the stage, the vCenter, and the mounted repository.

Decides how points are compared with the disks they were made of. Knows Backpoint by its command
line and its mount only.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.demo_config import MOUNT
from tools.stage import Stage
from tools.vcenter_scene import VCenterScene

_UMOUNT_LIMIT_S = 60
# What the agent says of each VM while it works; warnings and results begin otherwise.
_PROGRESS = r"backpoint: (web01|web01-restored|web02|db01): "
_RESULT = re.compile(r"^(\S+) +done(?:, alarm)? +(\S+Z) ", re.MULTILINE)
_APPEAR_LIMIT_S = 20


@dataclass(frozen=True)
class Play:
    """A stage and its scenery. newest: the name of each VM's last point."""

    stage: Stage
    folder: Path
    vcenter: VCenterScene
    newest: dict[str, str] = field(default_factory=dict)

    @property
    def mount(self) -> Path:
        return self.folder / MOUNT

    def agent(self, *words: str, code: int = 0) -> str:
        """Run `backpoint agent`, its progress not shown; what it said. Raises RuntimeError."""
        return self.stage.run("backpoint", "agent", *words, hidden=_PROGRESS, code=code)

    def back_up(self, *words: str) -> str:
        """The same for `backup`; its points are the newest now."""
        said = self.agent("backup", *words)
        self.newest.update(_RESULT.findall(said))
        return said

    def point(self, vm: str) -> Path:
        """The folder of its newest point. Raises RuntimeError if it does not appear."""
        return self._appeared(self.mount / "vms" / vm / self.newest[vm])

    def proof(self, vm: str) -> Path:
        """What the newest point's last proof says. Raises RuntimeError if it does not appear."""
        return self._appeared(self.point(vm) / "proof.json")

    def facts(self, vm: str) -> dict[str, Any]:
        """What the newest point says of itself."""
        told: dict[str, Any] = json.loads((self.point(vm) / "point.json").read_text())
        return told

    def compare(self, vm: str) -> None:
        """The newest point with the VM's disks as they are now. Raises RuntimeError."""
        copies = sorted(self.point(vm).glob("disk*-flat.vmdk"))
        self.stage.require(bool(copies), f"the point of {vm} has no disk")
        for number, copy in enumerate(copies):
            self.stage.run("cmp", self.vcenter.disk(vm, number), copy)

    def _appeared(self, path: Path) -> Path:
        deadline = time.monotonic() + _APPEAR_LIMIT_S
        while not path.exists():
            self.stage.require(time.monotonic() < deadline, f"{path} is not there")
            time.sleep(0.05)
        return path

    @property
    def is_mounted(self) -> bool:
        # Not os.path.ismount: it asks the mount itself, and a dead one answers with an error.
        table = Path("/proc/self/mountinfo").read_text()
        return str(self.mount) in (line.split()[4] for line in table.splitlines())


@contextlib.contextmanager
def unmounted_at_the_end(play: Play) -> Iterator[None]:
    """Take the mount away, whatever happened; one that still answers is ended in its own way."""
    try:
        yield
    finally:
        if play.is_mounted:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command = ("backpoint", "umount", str(play.mount))
                subprocess.run(command, check=False, timeout=_UMOUNT_LIMIT_S)
            if play.is_mounted:
                subprocess.run(["umount", "--lazy", play.mount], check=False)
