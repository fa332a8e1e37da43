"""One run of NFS-Ganesha over a mount: started with our configuration, ready when it says so.

Decides its command line and how a start that fails is told. What is in the configuration is for
`ganesha_config.py`; when it is started again for the supervisor.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.nfs.child import Child
from backpoint_fusefs.nfs.errors import ExportFailed
from backpoint_fusefs.nfs.ganesha_log import StartState, last_words, read_start

PROGRAM: Final = "ganesha.nfsd"
PACKAGES: Final = "nfs-ganesha and nfs-ganesha-vfs"
_START_S: Final = 20.0
_POLL_S: Final = 0.02
_LOG_READ_MAX: Final = 1 << 20


@dataclass(frozen=True)
class GaneshaFiles:
    """All in a private folder but the log. blkid: its memory of block devices, which must not
    outlive a device's number."""

    config: Path
    pid: Path
    blkid: Path
    log: Path


class Ganesha(Child):
    """Serves when it is made. Raises UsageError, ExportFailed."""

    def __init__(self, files: GaneshaFiles, output: int, epoch: int) -> None:
        """epoch: greater for every start. Clients see by it that what they wrote without COMMIT
        may be lost, and write it again; Ganesha's own, in seconds, can be the same twice."""
        files.blkid.unlink(missing_ok=True)
        begin = files.log.stat().st_size if files.log.exists() else 0
        command = [PROGRAM, "-F", "-f", str(files.config), "-L", str(files.log)]
        command += ["-p", str(files.pid), "-E", str(epoch)]
        places = {"BLKID_FILE": str(files.blkid)}
        super().__init__(command, output, package=PACKAGES, environment=places)
        try:
            self._await_start(files.log, begin)
        except BaseException:
            self.end()
            raise

    def _await_start(self, log: Path, begin: int) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            ended = self.ended_within(_POLL_S)
            text = _since(log, begin)
            state = read_start(text)
            if state.serving and not state.fault and not ended:
                return
            if state.serving or ended or time.monotonic() > deadline:
                raise ExportFailed(_why(state, text, log, ended=ended))


def _why(state: StartState, text: str, log: Path, *, ended: bool) -> str:
    said = last_words(text)
    what = "ended at its start" if ended else "does not begin to serve"
    reason = state.fault or said or "it does not say why"
    detail = f" ({said})" if state.fault and said else ""
    return f"NFS-Ganesha {what}: {reason}{detail}; its log is {log}"


def _since(log: Path, begin: int) -> str:
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.pread(fd, _LOG_READ_MAX, begin).decode(errors="replace")
    finally:
        os.close(fd)
