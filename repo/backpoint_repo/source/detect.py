"""Which kind of source a path is, by what it contains and never by its name.

Decides between raw bytes and the formats qemu reads. Block devices are always raw and are never
probed: a guest that owns a raw disk can write a qcow2 header at its start and name any file of the
host as its backing file; probing would put that file into the guest's backup. A raw disk kept in a
*regular file* can be forged the same way, and its first bytes do not tell. What protects then is
that `image_layers` follows no name out of the image's own folder; whoever knows that a file is raw
opens it with `RawImage` and asks nobody.
"""

from __future__ import annotations

import os

from backpoint_repo.errors import SourceError
from backpoint_repo.source.contract import ImageSource
from backpoint_repo.source.qemu_nbd import QemuImage
from backpoint_repo.source.raw_image import RawImage

_HEAD_SIZE = 512
_FOOTER_SIZE = 512
_MAGICS = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
}
_VMDK_DESCRIPTOR = b"# disk descriptorfile"
_VDI_MAGIC_AT, _VDI_MAGIC = 64, b"\x7f\x10\xda\xbe"


def open_image(path: str | os.PathLike[str]) -> ImageSource:
    """Open the disk at `path`, whatever it is. Raises SourceError."""
    raw = RawImage(path)
    try:
        format_name = None if raw.is_block_device else _format_of(raw)
    except SourceError:
        raw.close()
        raise
    if format_name is None:
        return raw
    raw.close()
    return QemuImage(path, format_name)


def _format_of(image: RawImage) -> str | None:
    """The format the content announces; None for raw."""
    head = bytearray(min(_HEAD_SIZE, image.size))
    image.read_into(0, memoryview(head))
    for magic, name in _MAGICS.items():
        if head.startswith(magic):
            return name
    if head.lstrip().lower().startswith(_VMDK_DESCRIPTOR):
        return "vmdk"
    if head[_VDI_MAGIC_AT:].startswith(_VDI_MAGIC):
        return "vdi"
    # A fixed-size VHD is raw bytes and a footer.
    footer = bytearray(min(_FOOTER_SIZE, image.size))
    image.read_into(image.size - len(footer), memoryview(footer))
    return "vpc" if footer.startswith(b"conectix") else None
