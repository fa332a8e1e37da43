"""Which files a virtual disk consists of, and which of them may be read.

An image can name other files: a qcow2 its backing file, a vmdk its extents and its parent. Somebody
else may have written that image, so the names are hostile until proven harmless: `/etc/shadow`, an
address on the network, or a symbolic link to a neighbour's disk. Decides: a name counts only if it
is a regular file, no link, in the folder of the image that names it; a backing file needs its
format written beside its name, because guessing it would let a guest forge one; external data files
are refused. Refuses to know how qemu is started.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from backpoint_repo.errors import SourceError
from backpoint_repo.source.qcow2_header import HEADER_SIZE, parse_qcow2_header
from backpoint_repo.source.raw_image import RawImage
from backpoint_repo.source.vmdk_descriptor import (
    DESCRIPTOR_LIMIT,
    EMBEDDED_AT,
    EMBEDDED_SIZE,
    SPARSE_HEADER_SIZE,
    VmdkExtent,
    check_sparse_header,
    parse_vmdk_descriptor,
)

FORMATS = ("qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc")

_BACKED = ("qcow2", "raw", "vmdk")
_LAYERS_LIMIT = 64  # VMware stops at 32 snapshots; a loop must end somewhere
_HALF_A_DISK = "it is one extent of a split vmdk; name the disk's descriptor instead"
_VPC_FOOTER_SIZE = 512
_VPC_DIFFERENCING = 4


@dataclass(frozen=True)
class Layer:
    """One image file; `extents` are names in its own folder, `backing` is what shows through it."""

    path: str
    format: str
    extents: tuple[str, ...] = ()
    backing: Layer | None = None

    def files(self) -> Iterator[str]:
        """Paths of all files of this layer and those below."""
        yield self.path
        for name in self.extents:
            yield os.path.join(os.path.dirname(self.path), name)
        if self.backing:
            yield from self.backing.files()


def plan_layers(path: str, format_name: str) -> Layer:
    """Find all files of the image at `path`, which is of `format_name` (one of FORMATS).

    Raises SourceError if one is missing, or is a file the image has no business to name.
    """
    return _plan(os.path.abspath(path), format_name, _LAYERS_LIMIT)


def _plan(path: str, format_name: str, layers_left: int) -> Layer:
    if not layers_left:
        raise SourceError(f"{path!r}: more than {_LAYERS_LIMIT} images stand on each other")
    extents: tuple[str, ...] = ()
    backing: tuple[str, str] | None = None
    try:
        if format_name == "qcow2":
            backing = _qcow2_backing(path)
        elif format_name == "vmdk":
            extents, backing = _vmdk_files(path)
        elif format_name == "vpc":
            _check_vpc(path)
    except ValueError as error:
        raise SourceError(f"{path!r} cannot be read: {error}") from error
    below = _plan(*backing, layers_left - 1) if backing else None
    return Layer(path, format_name, extents, below)


def _qcow2_backing(path: str) -> tuple[str, str] | None:
    header = parse_qcow2_header(_read(path, 0, HEADER_SIZE))
    if header.external_data:
        raise ValueError(
            "its data is in an external file, which is not followed; `qemu-img convert` makes one"
        )
    if header.backing_name is None:
        return None
    if header.backing_format is None:
        raise ValueError(
            "it does not say the format of its backing file; `qemu-img rebase -u -F` adds it"
        )
    format_name = header.backing_format.decode(errors="replace")
    if format_name not in _BACKED:
        raise ValueError(f"its backing file has the unknown format {format_name!r}")
    return _neighbour(path, header.backing_name), format_name


def _vmdk_files(path: str) -> tuple[tuple[str, ...], tuple[str, str] | None]:
    magic = _read(path, 0, 4)
    if magic == b"COWD":
        raise ValueError(_HALF_A_DISK)
    if magic == b"KDMV":
        check_sparse_header(_read(path, 0, SPARSE_HEADER_SIZE), alone=True)
        embedded = parse_vmdk_descriptor(_read(path, EMBEDDED_AT, EMBEDDED_SIZE))
        if not embedded.extents:
            raise ValueError(_HALF_A_DISK)
        # Its extent line names the file itself, perhaps by an older name; qemu ignores it.
        parent = embedded.parent
        extents: tuple[VmdkExtent, ...] = ()
    else:
        data = _read(path, 0, DESCRIPTOR_LIMIT + 1)
        if len(data) > DESCRIPTOR_LIMIT:
            raise ValueError("its descriptor is longer than 1 MiB")
        descriptor = parse_vmdk_descriptor(data)
        parent, extents = descriptor.parent, descriptor.extents
        if not extents:
            raise ValueError("its descriptor names no extent")
    for extent in extents:
        _check_extent(path, extent)
    backing = (_neighbour(path, parent), "vmdk") if parent is not None else None
    return tuple(os.fsdecode(extent.name) for extent in extents), backing


def _check_extent(path: str, extent: VmdkExtent) -> None:
    name = os.fsdecode(extent.name)
    if "/" in name:
        raise ValueError(f"its extent {name!r} is not in its own folder")
    file = _neighbour(path, extent.name)
    if os.stat(file).st_size < extent.needs:
        # qemu would invent zeros for what is missing.
        raise ValueError(f"its extent {name!r} is shorter than its descriptor says")
    header = _read(file, 0, SPARSE_HEADER_SIZE)
    # Only for this kind does qemu look at the magic; a flat extent may begin with anything.
    if extent.kind == "SPARSE" and header[:4] == b"KDMV":
        check_sparse_header(header, alone=False)


def _check_vpc(path: str) -> None:
    footer = _read(path, max(os.stat(path).st_size - _VPC_FOOTER_SIZE, 0), _VPC_FOOTER_SIZE)
    if int.from_bytes(footer[60:64], "big") == _VPC_DIFFERENCING:
        raise ValueError("it is a differencing VHD, which qemu reads without its parent")


def _neighbour(path: str, named: bytes) -> str:
    """The file that the image at `path` calls `named`; raises ValueError unless it may be read."""
    folder = os.path.dirname(path)
    name = os.fsdecode(named)
    head, tail = os.path.split(name)
    outside = not head and ":" in name  # to qemu, a protocol such as nbd: or json:
    if "\0" in name or tail in ("", ".", "..") or outside:
        raise ValueError(f"it names {name!r}, which is not a file")
    if os.path.realpath(os.path.join(folder, head)) != os.path.realpath(folder):
        raise ValueError(
            f"it names {name!r}, which is not in its own folder; `qemu-img convert` makes it whole"
        )
    found = os.path.join(folder, tail)
    try:
        mode = os.lstat(found).st_mode
    except OSError as error:
        raise ValueError(f"it needs {found!r}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ValueError(f"it names {found!r}, which is not a regular file")
    return found


def _read(path: str, offset: int, length: int) -> bytes:
    """Up to `length` bytes at `offset`, fewer where the file ends."""
    image = RawImage(path)
    try:
        data = bytearray(max(0, min(length, image.size - offset)))
        image.read_into(offset, memoryview(data))
    finally:
        image.close()
    return bytes(data)
