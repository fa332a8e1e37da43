"""The three realms of a mount, and whose an inode number is."""

from __future__ import annotations

from backpoint_fusefs.guest.mounted.guest_file_realm import GuestFileRealm
from backpoint_fusefs.guest.mounted.guest_folder_realm import GuestFolderRealm
from backpoint_fusefs.guest.mounted.guest_inodes import is_guest_file, is_guest_folder
from backpoint_fusefs.guest.mounted.guest_places import GuestPlaces
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.point_realm import MountParts, PointRealm
from backpoint_fusefs.realm import Realm


class Realms:
    """pool: of the processes that parse guests."""

    def __init__(self, parts: MountParts, pool: ParserPool) -> None:
        self._points = PointRealm(parts)
        self.places = GuestPlaces(parts, self._points, pool)
        self._folders = GuestFolderRealm(parts, self._points, self.places)
        self._files = GuestFileRealm(parts, self.places)

    def of(self, inode: int) -> Realm:
        """By the number alone."""
        if is_guest_file(inode):
            return self._files
        return self._folders if is_guest_folder(inode) else self._points
