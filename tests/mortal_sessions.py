"""What is done to a session by a process that dies on the way, before any one of its steps.

A step is whatever changes a folder: a file made, renamed or removed, a folder likewise. Run as a
program it forks a process for each line `work n root home` of its input, and answers each with how
that ended: `died`, or `done` where there were fewer steps. Decides nothing of what must hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from backpoint_fusefs.live.node_tree import ROOT_NODE
from backpoint_fusefs.live.session_home import SessionHome
from backpoint_repo.repository import Repository, open_repository
from backpoint_repo.store.local import LocalStore
from session_scene import named
from small_repository import PASSPHRASE, StandingClock

_STEPS: Final = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate"}
_DIED: Final = 77
Work = Callable[[Repository, SessionHome], None]


class Mortals:
    """Asks that program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def die_in(self, work: str, step: int, root: Path, home: Path) -> bool:
        """Whether it died; False: all was done in fewer steps."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(work, step, root, home, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline().strip()
        assert answer in ("died", "done"), answer
        return answer == "died"


@contextmanager
def mortals() -> Iterator[Mortals]:
    """The program, as long as it is needed."""
    command = [sys.executable, __file__]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        yield Mortals(process)


def start(repository: Repository, home: SessionHome) -> None:
    home.start(repository.catalog.refresh()[0], "web")


def cut(repository: Repository, home: SessionHome) -> None:
    """After writing to both disks and a file."""
    session = home.open("web")
    for name in (b"disk0-flat.vmdk", b"disk1-flat.vmdk", b"vmware.log"):
        session.file(named(session, name).number).write(4, b"written by the dying")
    session.sync()
    session.cut()


def rebase(repository: Repository, home: SessionHome) -> None:
    """On the newest point, which holds the first cut."""
    session = home.open("web")
    for name in (b"disk0-flat.vmdk", b"disk1-flat.vmdk"):
        session.file(named(session, name).number)
    session.rebase(repository.catalog.refresh()[-1].point_id.hex(), 1)


def discard(repository: Repository, home: SessionHome) -> None:
    home.discard("web")


def forget(repository: Repository, home: SessionHome) -> None:
    session = home.open("web")
    for name in (b"vmware.log", b"disk1-flat.vmdk"):
        node = named(session, name)
        session.file(node.number).write(0, b"x")
        session.names.unlink(ROOT_NODE, name)
        session.forget(node.number)
    session.close()


_WORKS: Final[dict[str, Work]] = {
    work.__name__: work for work in (start, cut, rebase, discard, forget)
}


def _work_dying(work: Work, step: int, root: Path, home: Path) -> None:
    repository = open_repository(LocalStore(root), PASSPHRASE, StandingClock())
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and arguments[2] & (os.O_CREAT | os.O_TRUNC)
        if event in _STEPS or writes:
            left -= 1
            if left < 0:
                os._exit(_DIED)

    sys.addaudithook(count)
    work(repository, SessionHome(home, repository))
    os._exit(0)


def main() -> None:
    """Until the input ends."""
    for line in sys.stdin:
        work, step, root, home = line.split()
        child = os.fork()
        if child == 0:
            _work_dying(_WORKS[work], int(step), Path(root), Path(home))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print({_DIED: "died", 0: "done"}.get(code, f"failed with {code}"), flush=True)


if __name__ == "__main__":
    main()
