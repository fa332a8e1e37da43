"""The extents of one file as its subvolume's tree has them, and the bytes they hold.

Decides where bytes lie and what is zeros. Checksums of data are not verified: content normally
goes from volume to reader without passing here, so a verified minority would promise too much.
Layout: struct btrfs_file_extent_item; what is refused follows fs/btrfs/tree-checker.c.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from backpoint_fusefs.guest.filesystem import (
    DECODED,
    HOLE,
    Extent,
    GuestDamaged,
    GuestUnsupported,
    VolumeImage,
)
from backpoint_fusefs.guest.parsers.btrfs.chunks import ChunkMap
from backpoint_fusefs.guest.parsers.btrfs.decode import DECODED_MAX, NONE, STORED_MAX, decode
from backpoint_fusefs.guest.parsers.btrfs.items import EXTENT_DATA
from backpoint_fusefs.guest.parsers.btrfs.tree import Tree

# ram_bytes, compression, encryption, other_encoding, type; then what all but inline ones have:
# disk_bytenr, disk_num_bytes, offset, num_bytes.
_HEAD: Final = Struct("<8xQBBHB")
_PLACE: Final = Struct("<QQQQ")
_INLINE: Final = 0
_REGULAR: Final = 1
_PREALLOCATED: Final = 2

# Of 128 KiB each at most.
_DECODED_KEPT: Final = 32


class FileExtent(NamedTuple):
    """Bytes [start, start + length) of a file.

    They begin `skip` bytes into an extent of `size` bytes, which as stored is `stored` bytes at
    `address` or all of `inline`. address 0: zeros.
    """

    start: int
    length: int
    compression: int
    size: int
    address: int = 0
    stored: int = 0
    skip: int = 0
    inline: bytes | None = None

    @property
    def end(self) -> int:
        """Where in the file it ends."""
        return self.start + self.length

    @property
    def is_zeros(self) -> bool:
        """Whether nothing is stored."""
        return not self.address and self.inline is None

    @property
    def is_plain(self) -> bool:
        """Whether the file's bytes are on the volume as they are."""
        return self.inline is None and self.compression == NONE


class FileExtents:
    """Of all files of a filesystem."""

    def __init__(self, image: VolumeImage, chunks: ChunkMap, sector_size: int) -> None:
        self._image = image
        self._chunks = chunks
        self._sector_size = sector_size
        self._decoded: OrderedDict[FileExtent, bytes] = OrderedDict()

    def extents(self, tree: Tree, ino: int, size: int) -> Iterator[Extent]:
        """As the contract wants them: no gaps, exactly `size` bytes."""
        done = 0
        for extent in self._stored(tree, ino, 0, size):
            if extent.start > done:
                yield Extent(done, extent.start - done, HOLE)
            done = min(extent.end, size)
            length = done - extent.start
            if not extent.is_plain:
                yield Extent(extent.start, length, DECODED)
                continue
            start = extent.start
            for place, part in self._chunks.pieces(extent.address + extent.skip, length):
                yield Extent(start, part, place)
                start += part
        if done < size:
            yield Extent(done, size - done, HOLE)

    def read(self, tree: Tree, ino: int, offset: int, length: int) -> bytes:
        """Of a file that has all these bytes."""
        content = bytearray(length)
        end = offset + length
        for extent in self._stored(tree, ino, offset, end):
            start = max(offset, extent.start)
            stop = min(end, extent.end)
            part = self._bytes(extent, start - extent.start, stop - start)
            content[start - offset : start - offset + len(part)] = part
        return bytes(content)

    def _bytes(self, extent: FileExtent, start: int, length: int) -> bytes:
        """Fewer at the end of an inline extent, after which there are zeros."""
        if extent.is_plain:
            return b"".join(
                self._read(place, part)
                for place, part in self._chunks.pieces(extent.address + extent.skip + start, length)
            )
        if extent.inline is not None and extent.compression == NONE:
            return extent.inline[start : start + length]
        start += extent.skip
        return self._decode(extent)[start : start + length]

    def _decode(self, extent: FileExtent) -> bytes:
        # The parts of a file that share an extent share what it decodes to.
        key = extent._replace(start=0, length=0, skip=0)
        known = self._decoded.get(key)
        if known is not None:
            self._decoded.move_to_end(key)
            return known
        stored = extent.inline
        if stored is None:
            places = self._chunks.pieces(extent.address, extent.stored)
            stored = b"".join(self._read(place, part) for place, part in places)
        known = decode(stored, extent.compression, extent.size, self._sector_size)
        self._decoded[key] = known
        if len(self._decoded) > _DECODED_KEPT:
            self._decoded.popitem(last=False)
        return known

    def _read(self, place: int, length: int) -> bytes:
        data = self._image.read(place, length)
        if len(data) != length:
            raise GuestDamaged(f"the volume ends before the data at byte {place}")
        return data

    def _stored(self, tree: Tree, ino: int, start: int, end: int) -> Iterator[FileExtent]:
        """Extents that are not zeros and have a byte in [start, end), in order."""
        low = (ino, EXTENT_DATA, start)
        floor = tree.floor(low) if start else None
        if floor is not None and floor[:2] == low[:2]:
            low = floor
        done = 0
        for item, data in tree.items(low, (ino, EXTENT_DATA, end)):
            extent = self._parse(item[2], data)
            if extent.start < done:
                raise GuestDamaged(f"two extents of the file {ino} overlap")
            done = extent.end
            if done > start and not extent.is_zeros:
                yield extent

    def _parse(self, start: int, item: bytes) -> FileExtent:
        if len(item) < _HEAD.size:
            raise GuestDamaged("an extent item is cut off")
        size, compression, encryption, encoding, kind = _HEAD.unpack_from(item)
        if encryption or encoding:
            raise GuestUnsupported("a file's content is encrypted or in an unknown encoding")
        if kind == _INLINE:
            return self._inline(start, item[_HEAD.size :], size, compression)
        if kind not in (_REGULAR, _PREALLOCATED) or len(item) != _HEAD.size + _PLACE.size:
            raise GuestDamaged("an extent item is of no known kind")
        address, stored, skip, length = _PLACE.unpack_from(item, _HEAD.size)
        if (start | address | stored | skip | length) % self._sector_size or not length:
            raise GuestDamaged("an extent begins or ends within a sector")
        if kind == _PREALLOCATED or not address:
            return FileExtent(start, length, NONE, length)
        if compression == NONE:
            size = stored
        elif not 0 < size <= DECODED_MAX or stored > STORED_MAX:
            raise GuestDamaged("a compressed extent has an impossible size")
        if skip + length > size:
            raise GuestDamaged("a file uses more of an extent than there is")
        return FileExtent(start, length, compression, size, address, stored, skip)

    def _inline(self, start: int, content: bytes, size: int, compression: int) -> FileExtent:
        """Only ever the file's first sector; what is missing of that is zeros."""
        if start or (compression == NONE and size != len(content)):
            raise GuestDamaged("an inline extent has an impossible place or length")
        if not 0 < size <= DECODED_MAX:
            raise GuestDamaged("an inline extent has an impossible size")
        length = -(-size // self._sector_size) * self._sector_size
        return FileExtent(0, length, compression, size, inline=content)
