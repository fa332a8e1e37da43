"""A disk as a qcow2 image, written by qemu itself.

Decides how qemu gets to see the unfinished file: through one link in a private folder, so that no
colon, comma or strange byte of its path reaches qemu's parsers. qcow2 counts whole sectors: a disk
whose size is not a multiple of 512 gets up to 511 zero bytes more.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from backpoint_repo.errors import SourceError, TargetError
from backpoint_repo.source.nbd_child import require_program
from backpoint_repo.source.qemu_nbd_child import QemuNbdChild
from backpoint_repo.target.contract import Content
from backpoint_repo.target.nbd_writer import NbdWriter
from backpoint_repo.target.staged_file import StagedFile

_SECTOR: Final = 512
_CREATE_LIMIT_S: Final = 60.0
# A flush may have gigabytes of the kernel's cache to bring to a slow disk.
_ANSWER_LIMIT_S: Final = 900.0
_CLOSE_LIMIT_S: Final = 60.0


class Qcow2Target:
    """`ImageTarget` of a new qcow2 image."""

    def __init__(self, path: Path, size: int) -> None:
        """Raises UsageError where `path` exists or has no folder, TargetError."""
        self._name = os.fspath(path)
        self._lock = threading.Lock()
        try:
            with ExitStack() as opened:
                self._file = StagedFile(path)
                opened.callback(self._file.discard)
                folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="backpoint-"))
                link = os.path.join(folder, "image")
                os.symlink(self._file.path, link)
                self._create(link, -(-size // _SECTOR) * _SECTOR)
                node = {"driver": "qcow2", "file": {"driver": "file", "filename": link}}
                self._child = QemuNbdChild(self._name, folder, node, [])
                opened.callback(self._child.close)
                self._writer = self._child.first_connection(self._connect)
                opened.callback(self._writer.close)
                self._opened = opened.pop_all()
        except (SourceError, OSError) as error:
            raise TargetError(f"cannot create {self._name!r}: {error}") from error

    def write_at(self, offset: int, data: Content) -> None:
        """Raises TargetError, with qemu's words if it died."""
        try:
            with self._lock:
                self._writer.write_at(offset, data)
        except SourceError as error:
            raise TargetError(str(self._child.explained(error))) from error

    def zero_at(self, offset: int, length: int) -> None:
        """Nothing: a new image has no clusters."""

    def finish(self) -> None:
        """Raises UsageError, TargetError."""
        try:
            self._writer.flush()
            self._writer.close()
            # What a crash of qemu now would leave undone is unknown, so it has to end well.
            self._child.await_end(_CLOSE_LIMIT_S)
        except SourceError as error:
            raise TargetError(str(self._child.explained(error))) from error
        self._file.publish()
        self._opened.close()

    def abandon(self) -> None:
        """End qemu and remove the unfinished file."""
        self._opened.close()

    def _connect(self) -> NbdWriter:
        return NbdWriter(self._child.address, self._name, _ANSWER_LIMIT_S)

    def _create(self, link: str, size: int) -> None:
        program = require_program("qemu-img", self._name)
        command = [program, "create", "-q", "-f", "qcow2", link, str(size)]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=_CREATE_LIMIT_S,
                start_new_session=True,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise SourceError(f"qemu-img: {said}") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"qemu-img took more than {_CREATE_LIMIT_S:g} s") from error
