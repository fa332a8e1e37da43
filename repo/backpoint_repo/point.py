"""A restore point: one moment of one VM, whole, with its disks' maps and its configuration files.

Decides what is recorded and how it is written down. Where points are, and which one a user means,
is for `catalog.py` and `point_selector.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from backpoint_repo.capture import Capture, refusal
from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.format import BLOCK_SIZE, ID_SIZE, MAX_DISK_SIZE
from backpoint_repo.record import Record, encode_record

POINT_ID_SIZE: Final = 16
FILE_SIZE_MAX: Final = 64 << 20
"""Configuration files are small: .vmx, nvram, inventory records."""
FILE_CHUNK: Final = 64 << 10
ORIGIN: Final = "live"
COPY: Final = "copy"
"""The keys of a capture that the repository itself looks for: see `Point.branch`, `Point.origin`.
"""
ORIGIN_SIZE: Final = 32
_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_GENERATION_MAX: Final = 1 << 62
_TIME_END: Final = 253_402_300_800.0
"""The year 10000, which no calendar of Python shows."""


@dataclass(frozen=True)
class Disk:
    """One disk of a point.

    key: what identifies the disk within its VM over time. size, allocated: bytes, virtual and not
    hole. root: id of the map's root node. source: what it was read from, for the user.
    """

    key: str
    size: int
    root: bytes
    allocated: int
    source: str

    def fields(self) -> dict[str, Any]:
        """As a record."""
        return {
            "key": self.key,
            "size": self.size,
            "root": self.root,
            "allocated": self.allocated,
            "source": self.source,
        }


@dataclass(frozen=True)
class ConfigFile:
    """A small file of the VM, in chunks of 64 KiB (the last padded with zeros to whole blocks)."""

    name: str
    size: int
    chunks: tuple[bytes, ...]

    def stored_length(self, number: int) -> int:
        """Bytes of chunk `number` as it is stored: whole blocks."""
        left = self.size - number * FILE_CHUNK
        return min(FILE_CHUNK, -(-left // BLOCK_SIZE) * BLOCK_SIZE)

    def fields(self) -> dict[str, Any]:
        """As a record."""
        return {"name": self.name, "size": self.size, "chunks": list(self.chunks)}


@dataclass(frozen=True)
class Traffic:
    """What making the point cost, in bytes: read from the source, new to the repository, stored."""

    read: int = 0
    new: int = 0
    stored: int = 0


@dataclass(frozen=True)
class Point:
    """point_id: 16 bytes, the session's id. time: the moment shown, created: when it was published,
    both seconds since 1970, UTC. generation: one more than the parent's, so that a VM's points have
    an order whatever its clocks did. warnings: whatever is degraded about it, for the user.
    capture: what its maker wants to find again; the repository looks for `ORIGIN` and `COPY` only.
    """

    point_id: bytes
    vm: str
    time: float
    created: float
    label: str
    disks: tuple[Disk, ...]
    files: tuple[ConfigFile, ...] = ()
    parent: bytes | None = None
    generation: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    duration_s: float = 0.0
    consistency: str = "crash"
    warnings: tuple[str, ...] = ()
    tool: str = ""
    capture: Capture = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all disks together."""
        return sum(disk.size for disk in self.disks)

    @property
    def allocated(self) -> int:
        """Bytes that are not holes, all disks together."""
        return sum(disk.allocated for disk in self.disks)

    @property
    def branch(self) -> bool:
        """Whether a live session wrote it, so that production never was in this state."""
        return ORIGIN in self.capture

    @property
    def origin(self) -> bytes:
        """Of a copy, the original's repository and id, 16 bytes each; empty for what is none."""
        told = self.capture.get(COPY)
        if not isinstance(told, dict):
            return b""
        parts = [told.get("repository"), told.get("point")]
        known = [part for part in parts if isinstance(part, str) and _ID.fullmatch(part)]
        return bytes.fromhex("".join(known)) if len(known) == len(parts) else b""

    def encode(self) -> bytes:
        """The plain payload of a point object."""
        return encode_record(
            {
                "vm": self.vm,
                "time": self.time,
                "created": self.created,
                "label": self.label,
                "disks": [disk.fields() for disk in self.disks],
                "files": [file.fields() for file in self.files],
                "parent": self.parent,
                "generation": self.generation,
                "read": self.traffic.read,
                "new": self.traffic.new,
                "stored": self.traffic.stored,
                "duration_s": self.duration_s,
                "consistency": self.consistency,
                "warnings": list(self.warnings),
                "tool": self.tool,
                "capture": self.capture,
            }
        )


def is_calendar_time(seconds: float) -> bool:
    """Whether a date can be shown for it; false for what is not a number."""
    return 0 <= seconds < _TIME_END


def decode_point(point_id: bytes, payload: bytes) -> Point:
    """Raises ObjectDamaged where a field is missing or impossible."""
    what = f"points/{point_id.hex()}"
    record = Record.decode(payload, what)
    time, created = record.get("time", float), record.get("created", float)
    if not is_calendar_time(time) or not is_calendar_time(created):
        raise ObjectDamaged(f"{what}: is of no time that a calendar knows")
    capture = record.optional("capture", dict) or {}
    if why := refusal(capture):
        raise ObjectDamaged(f"{what}: what is recorded of its making {why}")
    return Point(
        point_id,
        record.get("vm", str),
        time,
        created,
        record.get("label", str),
        tuple(_decode_disk(disk, what) for disk in record.records("disks")),
        tuple(_decode_file(file, what) for file in record.records("files")),
        record.optional("parent", bytes),
        _generation(record),
        Traffic(record.natural("read"), record.natural("new"), record.natural("stored")),
        record.get("duration_s", float),
        record.get("consistency", str),
        tuple(record.items("warnings", str)),
        record.get("tool", str),
        capture,
    )


def _decode_disk(record: Record, what: str) -> Disk:
    disk = Disk(
        record.get("key", str),
        record.natural("size"),
        record.sized("root", ID_SIZE),
        record.natural("allocated"),
        record.get("source", str),
    )
    if disk.size > MAX_DISK_SIZE:
        raise ObjectDamaged(f"{what}: a disk of impossible size")
    return disk


def _decode_file(record: Record, what: str) -> ConfigFile:
    chunks = tuple(record.items("chunks", bytes))
    size = record.natural("size")
    expected = -(-size // FILE_CHUNK)
    if (
        size > FILE_SIZE_MAX
        or len(chunks) != expected
        or any(len(chunk) != ID_SIZE for chunk in chunks)
    ):
        raise ObjectDamaged(f"{what}: an impossible configuration file")
    return ConfigFile(record.get("name", str), size, chunks)


def _generation(record: Record) -> int:
    """Bounded so that points can follow it for ever: a forged one must not be the last."""
    generation = record.natural("generation")
    if generation >= _GENERATION_MAX:
        raise ObjectDamaged("a point of an impossible generation")
    return generation
