"""The realms of a mount, and whose an inode number is."""

from __future__ import annotations

from backpoint_fusefs.guest.mounted.guest_file_realm import GuestFileRealm
from backpoint_fusefs.guest.mounted.guest_folder_realm import GuestFolderRealm
from backpoint_fusefs.guest.mounted.guest_inodes import is_guest_file, is_guest_folder
from backpoint_fusefs.guest.mounted.guest_places import GuestPlaces
from backpoint_fusefs.guest.parser_pool import ParserPool
from backpoint_fusefs.inodes import LIVE
from backpoint_fusefs.live.mounted.live_inodes import is_live
from backpoint_fusefs.live.mounted.live_realm import LiveRealm
from backpoint_fusefs.live.mounted.live_sessions import LiveSessions
from backpoint_fusefs.point_realm import MountParts, PointRealm
from backpoint_fusefs.realm import Realm


class Realms:
    """pool: of the processes that parse guests. sessions: None where none are shown."""

    def __init__(self, parts: MountParts, pool: ParserPool, sessions: LiveSessions | None) -> None:
        self._points = PointRealm(parts)
        self.places = GuestPlaces(parts, self._points, pool)
        self._folders = GuestFolderRealm(parts, self._points, self.places)
        self._files = GuestFileRealm(parts, self.places)
        self._live = None if sessions is None else LiveRealm(parts, sessions)

    def of(self, inode: int) -> Realm:
        """By the number alone."""
        if (live := self.writable_of(inode)) is not None:
            return live
        if is_guest_file(inode):
            return self._files
        return self._folders if is_guest_folder(inode) else self._points

    def writable_of(self, inode: int) -> LiveRealm | None:
        """The sessions' realm where the number is one of theirs."""
        return self._live if inode == LIVE or is_live(inode) else None
