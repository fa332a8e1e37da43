"""The one request about what is inside a file: the drive letters in a Windows registry hive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backpoint_fusefs.guest.filesystem import FileId
from backpoint_fusefs.guest.parsers.registry.mounted_devices import read_mounted_devices
from backpoint_fusefs.guest.worker.filesystem_service import FilesystemService
from backpoint_fusefs.guest.worker.guest_file_stream import GuestFileStream


def hive_methods(service: FilesystemService) -> dict[str, Callable[..., Any]]:
    """`mounted_devices`: name -> what the registry says of it."""

    def mounted_devices(tree: int, ino: int) -> dict[str, bytes]:
        return read_mounted_devices(GuestFileStream(service, FileId(tree, ino)))

    return {"mounted_devices": mounted_devices}
