"""A disk in an image format, read through qemu-nbd.

Decides what the child gets to see: a private folder of links to exactly the files `image_layers`
allowed, with the whole chain spelled out, so that no name written in an image is followed to
anywhere else, and no comma, colon or strange byte in a path reaches qemu's parsers. Refuses to know
formats (qemu does), the wire (`nbd_client`) and the process (`qemu_nbd_child`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing

from backpoint_repo.errors import SourceError, SourceShrank
from backpoint_repo.source.contract import Extent
from backpoint_repo.source.image_layers import Layer, plan_layers
from backpoint_repo.source.nbd_child import require_program
from backpoint_repo.source.nbd_client import NbdConnection
from backpoint_repo.source.nbd_image import NbdImage
from backpoint_repo.source.qemu_nbd_child import QemuNbdChild
from backpoint_repo.source.raw_image import RawImage

_CONNECTIONS = 4
# One read may wait for a slow disk or a network mount; a server that hangs must still be noticed.
_ANSWER_LIMIT_S = 60.0


class QemuImage:
    """`ImageSource` of a qcow2, vmdk, vhdx, vdi or vpc image."""

    def __init__(self, path: str | os.PathLike[str], format_name: str) -> None:
        """Start qemu-nbd on `path`; `format_name` is one of `image_layers.FORMATS`.

        Raises SourceError if the image names files it may not, qemu refuses it, or qemu-nbd is not
        installed.
        """
        self._name = os.fspath(path)
        require_program("qemu-nbd", self._name)
        layer = plan_layers(self._name, format_name)
        with ExitStack() as opened:
            # Undone in reverse, whatever stops us half way, Ctrl-C included.
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="backpoint-"))
            self._files = [opened.enter_context(closing(RawImage(path))) for path in layer.files()]
            try:
                node = link_layers(layer, folder)
            except OSError as error:
                raise SourceError(f"cannot start qemu-nbd for {self._name!r}: {error}") from error
            options = ["--read-only", f"--shared={_CONNECTIONS}"]
            self._child = QemuNbdChild(self._name, folder, node, options)
            opened.callback(self._child.close)
            first = [self._child.first_connection(self._connect)]
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
            raise self._child.explained(error) from error

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`.

        Raises SourceShrank if a file of the image is shorter than when it was opened, SourceError
        for other failures, with qemu's words if it died.
        """
        try:
            self._image.read_into(offset, buffer)
        except SourceError as error:
            raise self._child.explained(error) from error
        self._check_files()

    def close(self) -> None:
        """Close the connections, end the child, remove its folder. Idempotent."""
        self._opened.close()

    def _check_files(self) -> None:
        """qemu reads zeros, not an error, past the end of a file that was cut short."""
        for file in self._files:
            file.check_size()

    def _connect(self) -> NbdConnection:
        return NbdConnection(self._child.address, self._name, _ANSWER_LIMIT_S)


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
