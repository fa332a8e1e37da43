"""The guests' own files in the mount: whatever is below a volume's top, or below `root/`.

Finds the volume by the number and asks its parser; reads contents where they lie. errno is for
`operations.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyfuse3 import EntryAttributes

from backpoint_fusefs.attributes import XATTR_PREFIX
from backpoint_fusefs.guest.mounted.guest_file import DecodedFile, describe_file, mapped_content
from backpoint_fusefs.guest.mounted.guest_listing import GuestListing
from backpoint_fusefs.guest.mounted.guest_places import GuestPlaces, SeenFile
from backpoint_fusefs.guest.mounted.xattr_shelf import XattrShelf
from backpoint_fusefs.guest.volume import Volume
from backpoint_fusefs.open_file import OpenFile
from backpoint_fusefs.point_realm import MountParts
from backpoint_fusefs.realm import NotAFile, Opened


class GuestFileRealm:
    """See `Realm`. Methods also raise GuestError."""

    def __init__(self, parts: MountParts, places: GuestPlaces) -> None:
        self._parts = parts
        self._places = places
        self._xattrs = XattrShelf()

    async def attributes(self, inode: int) -> EntryAttributes:
        seen = await self._places.seen(inode)
        found = await seen.volume.run(seen.volume.blocking.stat, seen.file)
        return self._places.plain_attributes(inode, found)

    async def parent(self, folder: int) -> int:
        return await self._places.parent(folder)

    async def lookup(self, folder: int, name: bytes) -> EntryAttributes | None:
        seen = await self._places.seen(folder)
        found = await seen.volume.run(seen.volume.blocking.lookup, seen.file, name)
        if found is None:
            return None
        top = seen.view.crossed(seen.place, found.file)
        if top is not None:
            return await self._places.top_attributes(folder, seen.point, top)
        return self._places.attributes(folder, seen.point, seen.place, found)

    async def listing(self, folder: int) -> GuestListing:
        return GuestListing(self._places, self._xattrs, folder, await self._places.seen(folder))

    async def target(self, link: int) -> bytes:
        seen = await self._places.seen(link)
        return await seen.volume.run(seen.volume.blocking.readlink, seen.file)

    async def open(self, file: int) -> Opened:
        parts, seen = self._parts, await self._places.seen(file)
        volume = seen.volume.blocking
        described = await seen.volume.run(describe_file, volume, seen.file)
        if described is None:
            raise NotAFile
        label = f"{seen.view.label} guest/{seen.place} file {seen.file.ino}"
        # Without an await from here on: a pin and its file come together.
        closed = self._pinned(seen)
        if described.decoded:
            return DecodedFile(seen.volume, described, parts.workers, label, closed)
        content = mapped_content(volume, described)
        return OpenFile(content, parts.workers, parts.budget, label, closed)

    async def xattrs(self, inode: int) -> Mapping[bytes, bytes]:
        kept = self._xattrs.kept(inode)
        if kept is not None:
            return kept
        seen = await self._places.seen(inode)
        return await self._xattrs.fetched(inode, seen.volume, seen.file)

    async def hidden_xattr(self, inode: int, name: bytes) -> bytes | None:
        """Of a volume's top folder: what is known of the volume."""
        seen = await self._places.seen(inode)
        volume = seen.view.shown_at(seen.place)
        if volume is None or seen.file != await seen.volume.run(seen.volume.blocking.root):
            return None
        known = await seen.volume.run(seen.volume.blocking.facts)
        facts = _facts(volume) | {"recovery": known.recovery}
        value = facts.get(name.removeprefix(XATTR_PREFIX).decode(errors="replace"))
        return value.encode("utf-8", "backslashreplace") if value else None

    def _pinned(self, seen: SeenFile) -> Callable[[], None]:
        """The point's data and its view stay; to be called when the file is closed."""
        unpin = self._parts.lease.pinned(seen.view.pin)
        seen.view.open_files += 1

        def closed() -> None:
            seen.view.open_files -= 1
            unpin()

        return closed


def _facts(volume: Volume) -> dict[str, str]:
    return {
        "label": volume.label,
        "uuid": volume.uuid,
        "filesystem": volume.kind,
        "size": str(volume.size),
        "partition": volume.partition,
        "partition_label": volume.partition_label,
    }
