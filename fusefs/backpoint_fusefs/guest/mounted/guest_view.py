"""What one point's `guest/` holds: a tree for each volume, `root`, and explanations of what is
missing.

Decides names, and that nothing is absent without a word: what cannot be read is a folder with a
WHY.txt, what is shown incompletely has a `.WHY.txt` beside it. For the event loop only; the work is
done on threads. Knows no inode numbers but the roles of its own extras.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from backpoint_fusefs import inodes
from backpoint_fusefs.guest.filesystem import FileId, GuestError
from backpoint_fusefs.guest.guest_root import GuestRoot, RootMount, root_of
from backpoint_fusefs.guest.mounted.asked_volume import AskedVolume
from backpoint_fusefs.guest.point_guest import PointGuest, problem_of
from backpoint_fusefs.guest.volume import Volume
from backpoint_repo.pin import Pin

ROOT: Final = b"root"
WHY: Final = b"WHY.txt"
_EXTRAS_EACH: Final = 4
_VOLUMES_MAX: Final = inodes.GUEST_EXTRAS // _EXTRAS_EACH - 1
ROOT_PLACE: Final = "root/"
"""Begins the place of a tree in the guest's own view; the number of its mount follows."""


@dataclass(frozen=True)
class TreeTop:
    """The beginning of a tree of guest files. place: see `guest_inodes.TreeKey`."""

    place: str
    volume: AskedVolume
    root: FileId


@dataclass(frozen=True)
class Covered:
    """A folder in the place where it lies, though something may be mounted on it."""

    place: str
    file: FileId


@dataclass
class Extra:
    """Something of ours in `guest/`: a text, or a folder with `children`. role: of its number."""

    role: int
    folder: int
    text: bytes | None = None
    children: dict[bytes, Target] = field(default_factory=dict)


Target = TreeTop | Extra


class GuestView:
    """label: of the point, for messages. pin: what reading it needs of the repository."""

    def __init__(self, guest: PointGuest, label: str, pin: Pin) -> None:
        self._guest = guest
        self.label = label
        self.pin = pin
        self.open_files = 0
        self.extras: dict[int, Extra] = {}
        self._busy = trio.Lock()
        self._asked: dict[str, AskedVolume] = {}
        self._tops: dict[bytes, Target] = {}
        self._volumes: tuple[Volume, ...] | None = None
        self._root: GuestRoot | None = None

    async def find(self, name: bytes) -> Target | None:
        """What `guest/` has under this name; opens no more volumes than it must."""
        await self._find_volumes()
        if name not in self._tops:
            if name == ROOT or name.endswith(WHY):
                await self._complete()
            elif name.decode("utf-8", "replace") in self._asked:
                await self._open(name.decode())
        return self._tops.get(name)

    async def all(self) -> list[tuple[bytes, Target]]:
        """Everything in `guest/`."""
        await self._complete()
        return sorted(self._tops.items())

    async def extra(self, role: int) -> Extra | None:
        """One of ours, by its role."""
        if role not in self.extras:
            await self._complete()
        return self.extras.get(role)

    async def volume(self, place: str) -> AskedVolume | None:
        """The volume that is seen at a place."""
        await self._find_volumes()
        mount = await self.mount(place)
        return self._asked.get(place if mount is None else mount.volume.volume.name)

    async def mount(self, place: str) -> RootMount | None:
        """The mount of a place in the guest's own view; None for a place that is a volume."""
        number = mount_number(place)
        if number is None:
            return None
        await self._complete()
        mounts = self._root.mounts if self._root is not None else []
        return mounts[number] if number < len(mounts) else None

    def top(self, number: int) -> TreeTop:
        """The top of a mount in the guest's own view. After `mount` only."""
        assert self._root is not None
        mount = self._root.mounts[number]
        asked = self._asked[mount.volume.volume.name]
        return TreeTop(f"{ROOT_PLACE}{number}", asked, mount.root)

    def crossed(self, place: str, file: FileId) -> TreeTop | None:
        """What is mounted on a folder in the guest's own view."""
        number = mount_number(place)
        if number is None or self._root is None:
            return None
        covering = self._root.crossed(number, file)
        return None if covering is None else self.top(covering)

    async def above(self, place: str, file: FileId) -> Covered | int:
        """What a folder of a tree is to be looked for from: the role of what is ours, for the top
        of a tree that is shown in `guest/`; the folder that a mount covers, for the mount's top;
        else itself."""
        mount = await self.mount(place)
        if mount is None:
            await self._find_volumes()
            asked = self._asked.get(place)
            at_top = asked is not None and file == await asked.run(asked.blocking.root)
            return inodes.GUEST_FOLDER if at_top else Covered(place, file)
        if file != mount.root:
            return Covered(place, file)
        if mount.folder is not None:
            number, folder = mount.folder
            return await self.above(f"{ROOT_PLACE}{number}", folder)
        target = self._tops.get(ROOT)
        return target.role if isinstance(target, Extra) else inodes.GUEST_FOLDER

    def shown_at(self, place: str) -> Volume | None:
        """The volume shown at a place that is no part of the guest's own view."""
        return next((found for found in self._volumes or () if found.name == place), None)

    def close(self) -> None:
        """End its processes."""
        self._guest.close()

    async def _find_volumes(self) -> None:
        if self._volumes is not None:
            return
        async with self._busy:
            if self._volumes is not None:
                return
            try:
                volumes = await trio.to_thread.run_sync(self._guest.volumes, abandon_on_cancel=True)
                volumes, readable = volumes[:_VOLUMES_MAX], self._guest.readable()
            except GuestError as error:
                volumes, readable = (), {}
                self._explain(inodes.GUEST_EXTRAS - _EXTRAS_EACH, ROOT, str(error))
            self._asked = {
                one.name: AskedVolume(readable[one.name], f"{self.label} guest/{one.name}")
                for one in volumes
                if one.name in readable
            }
            for number, volume in enumerate(volumes):
                if volume.problem:
                    self._explain(number * _EXTRAS_EACH, volume.name.encode(), volume.problem)
            self._volumes = volumes

    async def _open(self, name: str) -> None:
        """Open one volume and show it, or say why not."""
        asked = self._asked[name]
        problem = await asked.run(problem_of, asked.blocking)
        number = self._number(name)
        if problem:
            self._explain(number, name.encode(), problem)
            return
        root = asked.blocking.root()  # known since it was opened: does not wait
        self._tops[name.encode()] = TreeTop(name, asked, root)
        recovery = asked.blocking.facts().recovery
        if recovery:
            self._beside(number, name.encode(), [recovery])

    async def _complete(self) -> None:
        """Open everything."""
        await self._find_volumes()
        if ROOT in self._tops:
            return
        async with self._busy:
            if ROOT in self._tops:
                return
            async with trio.open_nursery() as nursery:
                for name in self._asked:
                    if name.encode() not in self._tops:
                        nursery.start_soon(self._open, name)
            root = await trio.to_thread.run_sync(root_of, self._guest, abandon_on_cancel=True)
            self._show_root(root)

    def _show_root(self, root: GuestRoot) -> None:
        self._root = root
        first = inodes.GUEST_EXTRAS - _EXTRAS_EACH
        if root.kind == "unix":
            self._tops[ROOT] = self.top(0)
            if root.notes:
                self._beside(first, ROOT, root.notes)
            return
        if root.kind == "none":
            self._explain(first, ROOT, *root.notes)
            return
        folder = self._extra(first, inodes.GUEST_FOLDER)
        for number, mount in enumerate(root.mounts):
            folder.children[mount.path.strip(b"/")] = self.top(number)
        if root.notes:
            self._beside(first, ROOT, root.notes)
        self._tops[ROOT] = folder

    def _number(self, name: str) -> int:
        numbered = enumerate(self._volumes or ())
        return _EXTRAS_EACH * next(at for at, volume in numbered if volume.name == name)

    def _explain(self, number: int, name: bytes, *reasons: str) -> None:
        """A folder with nothing but the reason."""
        folder = self._extra(number, inodes.GUEST_FOLDER)
        folder.children[WHY] = self._extra(number + 1, folder.role, text_of(reasons))
        self._tops[name] = folder

    def _beside(self, number: int, name: bytes, reasons: Iterable[str]) -> None:
        text = self._extra(number + 2, inodes.GUEST_FOLDER, text_of(reasons))
        self._tops[name + b"." + WHY] = text

    def _extra(self, number: int, folder: int, text: bytes | None = None) -> Extra:
        role = inodes.GUEST_EXTRA + number
        made = self.extras[role] = Extra(role, folder, text)
        return made


def mount_number(place: str) -> int | None:
    """Which mount of the guest's own view a place is; None for a volume's own tree."""
    return int(place.removeprefix(ROOT_PLACE)) if place.startswith(ROOT_PLACE) else None


def text_of(reasons: Iterable[str]) -> bytes:
    """A WHY.txt: one reason a line."""
    lines = [reason[:1].upper() + reason[1:].rstrip(".") + "." for reason in reasons]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
