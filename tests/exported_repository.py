"""A repository exported over NFS by the real command, and its clients: libnfs' tools and QEMU's.

Everything that an export starts is gone when its block is left, or the test fails. NFSv3 has one
rpcbind for a machine, so only one test run at a time has an export.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backpoint_fusefs.nfs.export_folder import folder_of
from backpoint_repo.source.detect import open_image
from mounted_repository import MountedRepository
from small_repository import NOON, PASSPHRASE, back_up

PATH: Final = "/backpoint"
_COMMAND: Final = (
    sys.executable,
    "-c",
    "from backpoint_repo.cli import main; raise SystemExit(main())",
)
_START_S: Final = 60.0
_WAIT_S: Final = 60.0
_LOCK: Final = Path(tempfile.gettempdir()) / "backpoint-nfs-tests.lock"


def free_port() -> int:
    """Of this machine, now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool], why: str) -> None:
    """Fails the test where it does not become true."""
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def environment(made: MountedRepository) -> dict[str, str]:
    """Of a command on this repository, with a home of sessions of its own."""
    return os.environ | {
        "BACKPOINT_REPO": str(made.root),
        "BACKPOINT_PASSPHRASE": PASSPHRASE.text,
        "BACKPOINT_LIVE": str(made.root.parent / "sessions"),
        "XDG_STATE_HOME": str(made.state),
    }


@dataclass
class Exported:
    """A running export. record: what it said of itself. words: its messages so far."""

    made: MountedRepository
    process: subprocess.Popen[str]
    record: dict[str, Any]
    stderr: Path
    pids: set[int] = field(default_factory=set)

    @property
    def host(self) -> str:
        return str(self.record["address"])

    @property
    def mount(self) -> Path:
        """Where this machine sees what is exported."""
        return Path(self.record["mount"])

    @property
    def words(self) -> str:
        return self.stderr.read_text()

    def url(self, path: str, version: int) -> str:
        """For libnfs' tools."""
        ports = f"nfsport={self.record['nfs_port']}&mountport={self.record['mount_port']}"
        return f"nfs://{self.host}{PATH}/{path}?version={version}&{ports}"

    def qemu_url(self, path: str) -> str:
        """For QEMU, which asks rpcbind for the ports."""
        return f"nfs://{self.host}{PATH}/{path}"

    def names(self, path: str, version: int) -> list[str]:
        """Of a folder, as a client lists them."""
        listed = succeed("nfs-ls", self.url(path, version)).decode()
        return sorted(line.split()[-1] for line in listed.splitlines())

    def children(self) -> dict[str, int]:
        """Its processes by name: `ganesha.nfsd`, `rpcbind`, and the mount as `mount`."""
        found = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            for pid in map(int, (task / "children").read_text().split()):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                found[Path(command).name] = pid
                self.pids.add(pid)
        # Other children of the command look just like it.
        found["mount"] = int(os.getxattr(self.mount, b"user.backpoint.process").split()[0])
        return found

    def kill(self, name: str) -> None:
        """SIGKILL one of its processes and wait until it is served again."""
        served = self.words.count("served again")
        os.kill(self.children()[name], signal.SIGKILL)
        wait_for(lambda: self.words.count("served again") > served, self.words)
        self.children()

    def live(self, *words: str) -> str:
        """`backpoint live` with these words; its standard output."""
        done = subprocess.run(
            [*_COMMAND, "live", *words],
            env=environment(self.made),
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """As another process sees it."""
        done = self.made.backpoint("export", "--status", "--json", passphrase=None)
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        return record


def runs(pid: int) -> bool:
    """Whether the process is more than a body that nobody has fetched."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def tool(*words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
    """A client's tool, as it ends."""
    return subprocess.run(words, capture_output=True, timeout=timeout_s)


def succeed(*words: str) -> bytes:
    """Standard output of a client's tool that must succeed."""
    done = tool(*words)
    assert done.returncode == 0, f"{words}: {done.stdout!r} {done.stderr!r}"
    return done.stdout


def back_up_disk(made: MountedRepository, vm: str, content: bytes, hour: int = 0) -> None:
    """A point of a VM with one disk, made by another process's eyes. hour: after noon."""
    path = made.root.parent / "source.raw"
    path.write_bytes(content)
    with contextlib.closing(open_image(path)) as source:
        back_up(made.fresh(), vm, source, time=NOON + 3600.0 * hour)


def newest_disk(export: Exported, vm: str = "web") -> str:
    """The newest point's disk, as clients name it."""
    return f"vms/{vm}/{os.readlink(export.mount / 'vms' / vm / 'latest')}/disk0-flat.vmdk"


@contextlib.contextmanager
def exported(
    made: MountedRepository, *options: str, path: str = "", expected: int = 0
) -> Iterator[Exported]:
    """The export serves inside the block, at ports that were free. path: the PATH it is started
    with. expected: how the process ends."""
    ports = ("--port", str(free_port()), "--mount-port", str(free_port()))
    variables = environment(made) | ({"PATH": path} if path else {})
    stderr = made.root.parent / "export.stderr"
    with exports_alone(), stderr.open("w") as messages:
        process = subprocess.Popen(
            [*_COMMAND, "export", "--nfs", "--json", *ports, *options],
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=variables,
        )
        export = None
        try:
            export = Exported(made, process, _record(process, stderr), stderr)
            export.children()
            yield export
        finally:
            code = _end(process)
            left = _left(made, export)
            shutil.rmtree(folder_of(made.repository.config.repository_id).root, ignore_errors=True)
        assert code == expected, stderr.read_text()
        assert not left, left


@contextlib.contextmanager
def exports_alone() -> Iterator[None]:
    """No other test run has an export meanwhile."""
    with _LOCK.open("w") as lock:
        wait_for(lambda: _locked(lock.fileno()), "another test run has an export")
        yield


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _record(process: subprocess.Popen[str], stderr: Path) -> dict[str, Any]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _START_S)
    line = process.stdout.readline() if ready else ""
    assert line, stderr.read_text()
    record: dict[str, Any] = json.loads(line)
    return record


def _end(process: subprocess.Popen[str]) -> int:
    process.terminate()
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        assert process.stdout is not None
        process.stdout.close()


def _left(made: MountedRepository, export: Exported | None) -> Sequence[str]:
    """What an export that ended has left: mounts, block devices, processes, a socket."""
    root = folder_of(made.repository.config.repository_id).root
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    left = [line for line in table if str(root) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(root) in backing.read_text():
                left.append(str(backing))
    if export is not None:
        left += [f"process {pid}" for pid in export.pids if runs(pid)]
    return left
