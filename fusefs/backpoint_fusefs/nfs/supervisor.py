"""A repository served over NFS until it is told to stop: the mount and the servers kept alive.

Decides the order of starts and ends, and what dies with what: the NFS server holds on to the mount
it was started over and would serve a dead one's memories, so it never outlives its mount. All
happens in one thread, because the mount is forked from this process again and again.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.mount_point import find_mount
from backpoint_fusefs.mounting import MountPlan
from backpoint_fusefs.nfs.anchor_device import attached, make_anchor
from backpoint_fusefs.nfs.errors import ExportFailed
from backpoint_fusefs.nfs.export_folder import ExportFolder
from backpoint_fusefs.nfs.export_terms import PATH, ExportTerms
from backpoint_fusefs.nfs.ganesha import Ganesha, GaneshaFiles
from backpoint_fusefs.nfs.ganesha_config import ganesha_config
from backpoint_fusefs.nfs.kernel_exports import filesystem_id
from backpoint_fusefs.nfs.port_check import check_ports
from backpoint_fusefs.nfs.portmapping import PortMapping, find_port_mapping
from backpoint_fusefs.nfs.private_rpcbind import PrivateRpcbind
from backpoint_fusefs.nfs.restart_policy import RestartPolicy
from backpoint_fusefs.nfs.running_export import RunningExport, write_export
from backpoint_fusefs.process_mark import process_mark
from backpoint_fusefs.served_mount import ServedMount
from backpoint_repo.errors import BackpointError
from backpoint_repo.repository import Repository

_WATCH_MS: Final = 60_000
_MOUNT_TABLE: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class ExportPlan:
    """sessions: their home, None where only points are exported. cache_size: bytes. log: for the
    mount and all that the servers print; nfs_log: NFS-Ganesha's own."""

    repository: Repository
    terms: ExportTerms
    folder: ExportFolder
    sessions: Path | None
    cache_size: int
    log: Path
    nfs_log: Path


class Export:
    """For a `with`: all that was started is ended when it is left. The folder must be taken."""

    def __init__(
        self,
        plan: ExportPlan,
        tell: Callable[[str], None],
        output: int,
        policy: RestartPolicy | None = None,
    ) -> None:
        """tell: what the user should know. output: descriptor of plan.log."""
        self._plan = plan
        self._tell = tell
        self._output = output
        self._policy = policy or RestartPolicy()
        self._mount: ServedMount | None = None
        self._mounted_at = 0.0
        self._rpcbind: PrivateRpcbind | None = None
        self._ganesha: Ganesha | None = None
        self._epoch = 0
        self._restarts = 0
        self._ports = PortMapping.NONE

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_all()

    @property
    def running(self) -> RunningExport:
        """As it serves now."""
        plan, terms = self._plan, self._plan.terms
        sessions = None if plan.sessions is None else str(plan.sessions)
        return RunningExport(
            repository=plan.repository.config.repository_id.hex(),
            process=process_mark(os.getpid()).decode(),
            address=str(terms.address),
            nfs_port=terms.nfs_port,
            mount_port=terms.mount_port,
            path=PATH,
            mount=str(plan.folder.mount),
            sessions=sessions,
            read_only=terms.read_only,
            versions=(3, 4) if self._ports.nfs3 else (4,),
            allowed=tuple(map(str, terms.allowed)),
            restarts=self._restarts,
        )

    def start(self) -> None:
        """Returns once clients are served. Raises UsageError, ExportFailed, and what mounting
        raises."""
        plan, folder = self._plan, self._plan.folder
        check_ports(plan.terms, nfs3=True)
        self._ports = find_port_mapping()
        if self._ports.problem:
            self._tell(self._ports.problem)
        make_anchor(folder.anchor, filesystem_id(plan.repository.config.repository_id))
        _write_private(
            folder.config,
            ganesha_config(plan.terms, folder.mount, folder.clients, nfs3=self._ports.nfs3),
        )
        self._start_missing()
        write_export(folder, self.running)

    def keep(self) -> None:
        """Watch, and start again what dies. Ends only by an exception: a signal's, or ExportFailed
        where it cannot be kept."""
        while True:
            dead = self._await_death()
            lived_s = self._end_dead(dead)
            self._tell(f"{dead} died; it is started again")
            self._start_again(lived_s)

    def _start_again(self, lived_s: float) -> None:
        while True:
            pause_s = self._policy.after_failure(lived_s)
            if pause_s is None:
                raise ExportFailed(
                    f"the export keeps failing, so it ends; see {self._plan.log} and "
                    f"{self._plan.nfs_log}"
                )
            time.sleep(pause_s)
            try:
                self._start_missing()
            except BackpointError as error:
                self._tell(str(error))
                lived_s = 0.0
                continue
            self._restarts += 1
            write_export(self._plan.folder, self.running)
            self._tell("the export is served again")
            return

    def _start_missing(self) -> None:
        """In this order: the NFS server takes what it serves, and its rpcbind, as they are when it
        starts."""
        if self._mount is None:
            self._start_mount()
        if self._rpcbind is None and self._ports is PortMapping.PRIVATE:
            self._rpcbind = PrivateRpcbind(self._plan.terms.address, self._output)
        if self._ganesha is None:
            folder = self._plan.folder
            files = GaneshaFiles(
                folder.config,
                folder.root / "ganesha.pid",
                folder.root / "blkid",
                self._plan.nfs_log,
            )
            self._epoch = max(self._epoch + 1, int(time.time()))
            self._ganesha = Ganesha(files, self._output, self._epoch)

    def _start_mount(self) -> None:
        plan, folder = self._plan, self._plan.folder
        with attached(folder.anchor) as device:
            mount = MountPlan(
                plan.repository,
                folder.mount,
                plan.cache_size,
                live=plan.sessions,
                block_device=device,
            )
            self._mount = ServedMount(mount, self._output, str(plan.log), patient=True)
        self._mounted_at = time.monotonic()

    def _await_death(self) -> str:
        """The name of what died; of several the one that takes the others with it."""
        assert self._mount is not None
        assert self._ganesha is not None
        names = {self._mount.pidfd: "the mount", self._ganesha.pidfd: "NFS-Ganesha"}
        if self._rpcbind is not None:
            names[self._rpcbind.pidfd] = "rpcbind"
        poll = select.poll()
        for pidfd in names:
            poll.register(pidfd, select.POLLIN)
        with _MOUNT_TABLE.open("rb") as table:
            # The kernel tells of every change to it so (proc_pid_mountinfo(5)).
            poll.register(table.fileno(), select.POLLPRI)
            while True:
                ready = {pidfd for pidfd, _ in poll.poll(_WATCH_MS)}
                for pidfd, name in names.items():
                    if pidfd in ready:
                        return name
                if find_mount(self._plan.folder.mount) is None:
                    # Somebody unmounts it, and the kernel waits for us as long as we hold on.
                    return names[self._mount.pidfd]

    def _end_dead(self, dead: str) -> float:
        """End what cannot go on without it; seconds that it lived."""
        assert self._ganesha is not None
        lived_s = self._ganesha.lived_s
        if dead == "the mount":
            lived_s = time.monotonic() - self._mounted_at
            assert self._mount is not None
            # Killed before the mount's connection is let go: nobody tells a client of an error.
            self._ganesha.kill()
            self._mount.let_go()
            self._end_ganesha()
            self._end_mount()
        if dead == "rpcbind":
            self._end_rpcbind()
        self._end_ganesha()
        return lived_s

    def _end_all(self) -> None:
        with ExitStack() as stack:
            # Backwards: clients first lose the server, then it its mount.
            stack.callback(self._end_mount)
            stack.callback(self._end_rpcbind)
            stack.callback(self._end_ganesha)

    def _end_ganesha(self) -> None:
        ganesha, self._ganesha = self._ganesha, None
        if ganesha is not None:
            ganesha.end()

    def _end_rpcbind(self) -> None:
        rpcbind, self._rpcbind = self._rpcbind, None
        if rpcbind is not None:
            rpcbind.end()

    def _end_mount(self) -> None:
        mount, self._mount = self._mount, None
        if mount is not None:
            mount.end()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
