"""A VM as a point holds it: its description, its disks to read, its nvram, and where it was.

Decides what a point must have so that a VM can be made of it. Whatever comes out of the repository
was checked when it was sealed, not when it was written: it is read as a stranger's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backpoint_agent.restoring.description import (
    FILE_NAME,
    MachineDescription,
    decode_description,
)
from backpoint_agent.restoring.destination import Origin
from backpoint_repo.chunk_cache import ChunkCache
from backpoint_repo.errors import UsageError
from backpoint_repo.image_reader import ImageReader
from backpoint_repo.point import ConfigFile, Disk, Point
from backpoint_repo.point_record import point_name
from backpoint_repo.repository import Repository

_CACHE_BYTES: Final = 64 << 20
_NVRAM: Final = ".nvram"


@dataclass(frozen=True)
class StoredMachine:
    """vcenter, instance: the identity of the VM it was made of. disks: by key."""

    name: str
    vcenter: str
    instance: str
    description: MachineDescription
    origin: Origin
    disks: Mapping[str, Disk]
    nvram: bytes | None
    _repository: Repository = field(repr=False)

    def reader(self, key: str) -> ImageReader:
        """One of its disks. Raises ObjectDamaged."""
        return self._repository.open_disk(self.disks[key], ChunkCache(_CACHE_BYTES))


def read_stored_machine(repository: Repository, point: Point) -> StoredMachine:
    """Raises UsageError where the agent did not make the point, and as `Repository.read_file`."""
    name = point_name(point)
    capture = point.capture
    description_file = _file(point, lambda name: name == FILE_NAME)
    if capture.get("kind") != "vsphere" or description_file is None:
        raise UsageError(
            f"{name} does not say what VM it was made of ({FILE_NAME} is not in it), so none can "
            "be made; `backpoint restore` writes its disks to files"
        )
    what = f"{FILE_NAME} of {name}"
    description = decode_description(repository.read_file(description_file), what)
    nvram = _file(point, lambda name: name.endswith(_NVRAM))
    return StoredMachine(
        name,
        _text(capture, "vcenter"),
        _text(capture, "instance"),
        description,
        _origin(capture, description),
        {disk.key: disk for disk in point.disks},
        None if nvram is None else repository.read_file(nvram),
        repository,
    )


def _file(point: Point, wanted: Any) -> ConfigFile | None:
    return next((file for file in point.files if wanted(file.name)), None)


def _origin(capture: Mapping[str, Any], description: MachineDescription) -> Origin:
    files = {f"disk-{disk.key}": disk.file for disk in description.disks}
    return Origin(
        _text(capture, "folder"),
        _text(capture, "pool"),
        _text(capture, "host"),
        {"": description.vmx, **files},
    )


def _text(capture: Mapping[str, Any], key: str) -> str:
    value = capture.get(key)
    return value if isinstance(value, str) else ""
