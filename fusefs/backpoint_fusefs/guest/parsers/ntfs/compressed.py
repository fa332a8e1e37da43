"""Compressed content of NTFS (LZNT1), decoded by The Sleuth Kit, which is opened when first needed.

A byte at a time is no work for Python. Decides nothing about what is compressed.
"""

from __future__ import annotations

from typing import Any

import pytsk3

from backpoint_fusefs.guest.filesystem import GuestDamaged, VolumeImage
from backpoint_fusefs.guest.parsers.ntfs.attribute import DATA
from backpoint_fusefs.guest.parsers.tsk.tsk_image import TskImage, open_tsk_filesystem


class CompressedReader:
    def __init__(self, image: VolumeImage) -> None:
        self._image = TskImage(image)
        self._filesystem: Any = None
        self._opened: tuple[int, Any] | None = None

    def read(self, number: int, name: bytes, offset: int, length: int) -> bytes:
        """Of the data attribute with this UTF-16 name of file `number`, within its size."""
        if self._filesystem is None:
            self._filesystem = open_tsk_filesystem(self._image, pytsk3.TSK_FS_TYPE_NTFS)
        with self._image.failures():
            file = self._file(number)
            ident = _attribute_number(file, name.decode("utf-16-le", "replace").encode())
            found: bytes = file.read_random(
                offset, length, pytsk3.TSK_FS_ATTR_TYPE_NTFS_DATA, ident
            )
        if len(found) != length:
            raise GuestDamaged(f"a compressed file ends at byte {offset + len(found)}")
        return found

    def _file(self, number: int) -> Any:
        """The one read last stays open: most reads are of the same file."""
        if self._opened is None or self._opened[0] != number:
            self._opened = None
            self._opened = (number, self._filesystem.open_meta(inode=number))
        return self._opened[1]


def _attribute_number(file: Any, name: bytes) -> int:
    """The library's own number of this stream, which need not be the one on disk."""
    wanted = (name,) if name else (b"", b"$Data")
    for attribute in file:
        info = attribute.info
        if int(info.type) == DATA and (info.name or b"") in wanted:
            return int(info.id)
    raise GuestDamaged("The Sleuth Kit does not find a compressed file's content")
