"""The drive letters in a Windows SYSTEM hive: its key MountedDevices.

Decides how much of a hive is read at most; the format itself is dissect.regf's. What a value means
is for `root_view/drive_letters.py`.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from dissect.regf.exceptions import RegistryKeyNotFoundError
from dissect.regf.regf import KeyNode, RegistryHive

from backpoint_fusefs.guest.filesystem import GuestDamaged, GuestError

READS_MAX: Final = 50_000
BYTES_MAX: Final = 4 << 20
"""What is read of a real hive is some 100 KiB, two reads a cell: a few values for each USB stick
that was ever seen."""
VALUE_MAX: Final = 1024
"""Bytes; the ones that name a fixed drive have 12 or 24, the texts up to some 300."""

_DRIVE: Final = re.compile(r"\\DosDevices\\[A-Z]:", re.IGNORECASE | re.ASCII)


class HiveFile(Protocol):
    """As much of a binary file object as is needed."""

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def read(self, size: int, /) -> bytes | None: ...


def read_mounted_devices(hive: HiveFile) -> dict[str, bytes]:
    r"""Values such as `\DosDevices\C:`, and no others. Empty where there is no such key. A log
    beside the hive is not followed. Raises GuestDamaged."""
    try:
        return _read(hive)
    except GuestError:
        raise
    except Exception as error:
        # The library raises whatever its parsing trips over: EOFError, AttributeError on a cell of
        # another type, RecursionError where lists contain themselves, NotImplementedError, ...
        raise GuestDamaged(f"the registry hive is damaged ({type(error).__name__})") from error


def _read(file: HiveFile) -> dict[str, bytes]:
    hive = RegistryHive(_BoundedFile(file))
    # Cells from the library's cache would be walked again and again without being counted.
    hive.cell = hive.cell.__wrapped__
    root = hive.root()
    if not isinstance(root, KeyNode):
        raise GuestDamaged("the registry hive has no root key")
    try:
        key = root.subkey("MountedDevices")
    except RegistryKeyNotFoundError:
        return {}
    drives: dict[str, bytes] = {}
    for value in key.values():
        if _DRIVE.fullmatch(value.name) and value.size <= VALUE_MAX:
            drives[value.name] = value.data
    return drives


class _BoundedFile:
    """The library takes the size and place of a cell as the hive says, and lists of keys may
    contain each other (2^16 x 2^16 x ... steps); here all that it reads together is bounded."""

    def __init__(self, file: HiveFile) -> None:
        self._file = file
        self._reads_left = READS_MAX
        self._bytes_left = BYTES_MAX
        file.seek(0)
        if file.read(4) != b"regf":
            raise GuestDamaged("the file is no registry hive")

    def seek(self, offset: int) -> int:
        if offset < 0:
            raise GuestDamaged("the registry hive has a cell outside of it")
        return self._file.seek(offset)

    def read(self, size: int) -> bytes:
        self._reads_left -= 1
        self._bytes_left -= size
        if size < 0:
            raise GuestDamaged("the registry hive has a cell of an impossible size")
        if self._reads_left < 0 or self._bytes_left < 0:
            raise GuestDamaged("the registry hive's list of drives is impossibly large")
        data = self._file.read(size)
        if data is None or len(data) != size:
            raise GuestDamaged("the registry hive ends too early")
        return data
