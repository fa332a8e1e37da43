"""A repository and its real mount, driven through the command line as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.local import LocalStore
from small_repository import PASSPHRASE

_COMMAND = (sys.executable, "-c", "from backpoint_repo.cli import main; raise SystemExit(main())")

MakePoint = Callable[[str, bytes], None]
"""Make a point of a VM with one disk of these bytes."""


def run(*command: str | Path) -> str:
    """Standard output of a program that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class MountedRepository:
    """A repository, and a place where it is (or can be) mounted."""

    repository: Repository
    root: Path
    place: Path
    state: Path

    def backpoint(
        self, *words: str | Path, passphrase: str | None = PASSPHRASE.text
    ) -> subprocess.CompletedProcess[str]:
        """The command line on this repository."""
        environment = {k: v for k, v in os.environ.items() if k != "BACKPOINT_PASSPHRASE"}
        environment |= {"BACKPOINT_REPO": str(self.root), "XDG_STATE_HOME": str(self.state)}
        if passphrase is not None:
            environment["BACKPOINT_PASSPHRASE"] = passphrase
        return subprocess.run([*_COMMAND, *words], env=environment, capture_output=True, text=True)

    def mount(self, *options: str) -> None:
        """In the background. Fails the test where it does not work."""
        done = self.backpoint("mount", *options, self.place)
        assert done.returncode == 0, done.stderr

    def umount(self, *options: str) -> None:
        """Fails the test where it does not work."""
        done = self.backpoint("umount", *options, self.place)
        assert done.returncode == 0, done.stderr

    @property
    def sessions(self) -> Path:
        """The folder of live sessions, beside the repository."""
        return self.root.with_name("live")

    def mount_live(self, *options: str) -> None:
        """With the live sessions."""
        self.mount("--live", str(self.sessions), *options)

    def start_session(self, vm: str, name: str) -> Path:
        """Begin a live session of a VM's newest point; where it is seen while it is mounted."""
        repository = self.fresh()
        newest = [point for point in repository.catalog.refresh() if point.vm == vm][-1]
        SessionHome(self.sessions, repository).start(newest, name)
        return self.place / "live" / name

    @property
    def pid(self) -> int:
        """The process behind the mount."""
        return int(os.getxattr(self.place, b"user.backpoint.process").split()[0])

    @property
    def mounted(self) -> bool:
        """Whether anything is mounted there; never touches it."""
        return f" {self.place} " in Path("/proc/self/mountinfo").read_text()

    def newest(self, vm: str) -> Path:
        """The folder of a VM's newest point."""
        return self.place / "vms" / vm / "latest"

    def fresh(self) -> Repository:
        """As another process sees it now."""
        return open_repository(LocalStore(self.root), PASSPHRASE)

    def log(self) -> str:
        """All that mounts at this place have logged."""
        name = re.sub("/", "-", f"mount{self.place}.log")
        folder = Path("/var/log/backpoint") if os.geteuid() == 0 else self.state / "backpoint"
        return (folder / name).read_text()
