"""A disk in an image format, read through qemu-nbd.

Decides how the child is started, watched and ended. Refuses to know formats (qemu does) and the
wire (`nbd_client`). The child sees a private folder of links to exactly the files `image_layers`
allowed, and the whole chain is spelled out to it, so that no name written in an image is followed
to anywhere else, and no comma, colon or strange byte in a path reaches qemu's parsers.

The child dies with us because it runs without `--persistent`: when our last connection closes, even
by SIGKILL, it ends itself. PR_SET_PDEATHSIG would tie it to the *thread* that opened the image, and
setting it takes a `preexec_fn`, which may deadlock in a threaded program.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import IO

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.image_layers import Layer, plan_layers
from backpoint_repo.source.nbd_client import NbdConnection
from backpoint_repo.source.nbd_image import NbdImage
from backpoint_repo.source.raw_image import RawImage

_CONNECTIONS = 4
_START_LIMIT_S = 30.0
# One read may wait for a slow disk or a network mount; a server that hangs must still be noticed.
_ANSWER_LIMIT_S = 60.0
_END_LIMIT_S = 5.0
_POLL_MS = 5
# A dying child closes its socket a moment before it can be reaped.
_LAST_WORDS_MS = 200
_STDERR_LIMIT = 2000


class QemuImage:
    """`ImageSource` of a qcow2, vmdk, vhdx, vdi or vpc image."""

    def __init__(self, path: str | os.PathLike[str], format_name: str) -> None:
        """Start qemu-nbd on `path`; `format_name` is one of `image_layers.FORMATS`.

        Raises SourceError if the image names files it may not, qemu refuses it, or qemu-nbd is not
        installed.
        """
        self._name = os.fspath(path)
        program = shutil.which("qemu-nbd")
        if program is None:
            raise SourceError(
                f"reading {self._name!r} takes qemu-nbd: install the Debian package qemu-utils"
            )
        layer = plan_layers(self._name, format_name)
        with ExitStack() as opened:
            # Undone in reverse, whatever stops us half way, Ctrl-C included.
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="backpoint-"))
            self._stderr: IO[bytes] = opened.enter_context(tempfile.TemporaryFile())
            self._address = os.path.join(folder, "socket")
            self._files = [opened.enter_context(closing(RawImage(path))) for path in layer.files()]
            try:
                node = link_layers(layer, folder)
                self._child = self._start(program, node)
                opened.callback(self._end_child)
                self._exited = os.pidfd_open(self._child.pid)
                opened.callback(os.close, self._exited)
            except OSError as error:
                raise SourceError(f"cannot start qemu-nbd for {self._name!r}: {error}") from error
            first = [self._first_connection()]
            self._image = NbdImage(
                self._name, lambda: first.pop() if first else self._connect(), _CONNECTIONS
            )
            opened.callback(self._image.close)
            self._opened = opened.pop_all()

    @property
    def name(self) -> str:
        """The path as it was given."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes of the virtual disk."""
        return self._image.size

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Clusters no file of the chain has, or has as zeros, are holes.

        Raises SourceShrank, SourceError.
        """
        try:
            for extent in self._image.extents(offset, length):
                self._check_files()
                yield extent
        except SourceShrank:
            raise
        except SourceError as error:
            raise self._explained(error) from error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`.

        Raises SourceShrank if a file of the image is shorter than when it was opened, SourceError
        for other failures, with qemu's words if it died.
        """
        try:
            self._image.read_into(offset, buffer)
        except SourceError as error:
            raise self._explained(error) from error
        self._check_files()

    def close(self) -> None:
        """Close the connections, end the child, remove its folder. Idempotent."""
        self._opened.close()

    def _check_files(self) -> None:
        """qemu reads zeros, not an error, past the end of a file that was cut short."""
        for file in self._files:
            file.check_size()

    def _start(self, program: str, node: dict[str, object]) -> subprocess.Popen[bytes]:
        command = [program, "--read-only", f"--shared={_CONNECTIONS}", f"--socket={self._address}"]
        return subprocess.Popen(
            [*command, "json:" + json.dumps(node)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            # Ctrl-C at the terminal is for us; the child ends when we close.
            start_new_session=True,
        )

    def _first_connection(self) -> NbdConnection:
        """Connect as soon as the child listens, or say why it never will."""
        deadline = time.monotonic() + _START_LIMIT_S
        gone = select.poll()
        gone.register(self._exited, select.POLLIN)
        refusal: OSError | SourceError
        while True:
            try:
                return self._connect()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                refusal, patience_ms = error, _POLL_MS
            except (OSError, SourceError) as error:
                # It listens before it has opened the image, so it may also die in the handshake.
                refusal, patience_ms = error, _LAST_WORDS_MS
            if gone.poll(patience_ms):
                why = f"qemu-nbd cannot open {self._name!r}: {self._last_words()}"
                raise SourceError(why) from refusal
            if not isinstance(refusal, FileNotFoundError | ConnectionRefusedError):
                raise SourceError(f"no use of qemu-nbd for {self._name!r}: {refusal}") from refusal
            if time.monotonic() > deadline:
                why = f"qemu-nbd did not open {self._name!r} within {_START_LIMIT_S:g} s"
                raise SourceError(why) from refusal

    def _connect(self) -> NbdConnection:
        return NbdConnection(self._address, self._name, _ANSWER_LIMIT_S)

    def _explained(self, error: SourceError) -> SourceError:
        """Add the child's end to `error`, if it has ended."""
        try:
            self._child.wait(_LAST_WORDS_MS / 1000)
        except subprocess.TimeoutExpired:
            return error
        code = self._child.returncode
        return SourceError(f"{error}; qemu-nbd ended with code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        if self._stderr.closed:
            return "it was closed"
        # pread: the child writes through the same file position.
        said = os.pread(self._stderr.fileno(), _STDERR_LIMIT, 0).decode(errors="replace")
        return "; ".join(line for line in said.splitlines() if line) or "it said nothing"

    def _end_child(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def link_layers(layer: Layer, folder: str, depth: int = 0) -> dict[str, object]:
    """Link all files of `layer` and below under `folder`; returns qemu's description of the chain.

    A layer's links have a folder of their own, where qemu looks up the extents a vmdk names.
    """
    place = os.path.join(folder, str(depth))
    os.mkdir(place)
    for name in set(layer.extents):
        os.symlink(os.path.join(os.path.dirname(layer.path), name), os.path.join(place, name))
    link = "image"
    while link in layer.extents:
        link += "_"
    os.symlink(layer.path, os.path.join(place, link))
    file = {"driver": "file", "filename": os.path.join(place, link)}
    node: dict[str, object] = {"driver": layer.format, "file": file}
    if layer.backing:
        node["backing"] = link_layers(layer.backing, folder, depth + 1)
    elif layer.format in ("qcow2", "vmdk"):
        node["backing"] = None  # whatever the image says by the time qemu opens it
    if layer.format == "vpc":
        # By default qemu rounds to the geometry some programs wrote, which can cut the tail off.
        node["force_size_calc"] = "current_size"
    return node
