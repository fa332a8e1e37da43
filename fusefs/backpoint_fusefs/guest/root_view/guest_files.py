"""What a plan of the guest's own view must know of the files in its volumes.

`GuestFiles` is what the mount offers; `CarefulFiles` asks it and turns every failure into a note,
so that one volume that cannot be read costs the plan only that volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from backpoint_fusefs.guest.filesystem import FileId, GuestError

_T = TypeVar("_T")


class GuestFiles(Protocol):
    """Files of the volumes that have no problem, by the volume's name. Every call may raise
    GuestError.

    subvolume: a path of `subvolumes`, or None where the filesystem has no such thing. Paths are
    relative to its root, without a leading slash; symbolic links in them are followed inside of
    that subvolume or volume, as far as the caller likes to.
    """

    def exists(self, volume_name: str, subvolume: bytes | None, path: bytes) -> bool: ...

    def names(self, volume_name: str, subvolume: bytes | None, folder: bytes) -> Iterable[bytes]:
        """Of all entries of a folder; empty where there is no such folder."""
        ...

    def read_file(
        self, volume_name: str, subvolume: bytes | None, path: bytes, max_size: int
    ) -> bytes | None:
        """The first max_size bytes, or as many as there are; None where no regular file is."""
        ...

    def subvolumes(self, volume_name: str) -> Mapping[bytes, FileId]:
        """As `GuestFilesystem.subvolumes`."""
        ...

    def default_subvolume(self, volume_name: str) -> FileId:
        """What the kernel mounts where nobody names a subvolume: one of `subvolumes`."""
        ...

    def mounted_devices(self, volume_name: str, hive: bytes) -> Mapping[str, bytes]:
        """The drive letters in a Windows registry hive, by `parsers/registry`; hive: its path."""
        ...


class CarefulFiles:
    """Raises no GuestError: what fails is absent, and one of `notes` says so, once a volume."""

    def __init__(self, files: GuestFiles) -> None:
        self._files = files
        self._failed: dict[str, str] = {}
        self._subvolumes: dict[str, Mapping[bytes, FileId]] = {}

    @property
    def notes(self) -> list[str]:
        """Of every volume that failed, the first failure."""
        return [f"Not all of {name} could be read: {why}" for name, why in self._failed.items()]

    def exists(self, volume_name: str, subvolume: bytes | None, path: bytes) -> bool:
        return self._asked(volume_name, False, self._files.exists, subvolume, path)

    def names(self, volume_name: str, folder: bytes) -> list[bytes]:
        def listed(name: str) -> list[bytes]:
            return list(self._files.names(name, None, folder))

        return self._asked(volume_name, [], listed)

    def read_file(
        self, volume_name: str, subvolume: bytes | None, path: bytes, max_size: int
    ) -> bytes | None:
        def read(name: str) -> bytes | None:
            return self._files.read_file(name, subvolume, path, max_size)

        return self._asked(volume_name, None, read)

    def subvolumes(self, volume_name: str) -> Mapping[bytes, FileId]:
        found = self._subvolumes.get(volume_name)
        if found is None:
            none: Mapping[bytes, FileId] = {}
            found = self._asked(volume_name, none, self._files.subvolumes)
            self._subvolumes[volume_name] = found
        return found

    def default_subvolume(self, volume_name: str) -> bytes:
        """Its path; the top of the filesystem where it cannot be told."""
        found = self._asked(volume_name, None, self._files.default_subvolume)
        paths = [path for path, file in self.subvolumes(volume_name).items() if file == found]
        return min(paths, default=b"")

    def mounted_devices(self, volume_name: str, hive: bytes) -> Mapping[str, bytes]:
        return self._asked(volume_name, {}, self._files.mounted_devices, hive)

    def _asked(self, volume_name: str, otherwise: _T, ask: Callable[..., _T], *about: object) -> _T:
        try:
            return ask(volume_name, *about)
        except GuestError as error:
            self._failed.setdefault(volume_name, str(error))
            return otherwise
