"""A partition as its table describes it, and what its type alone says about it.

Knows the types that hold no files or that are read in another way; every other type is left to
what the partition holds, since types are often wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Partition:
    """number: as the guest's Linux counts. start, size: bytes, as the table says.

    type: two hex digits of an MBR, or the UUID of a GPT. uuid: PARTUUID. label: of GPT.
    """

    number: int
    start: int
    size: int
    type: str
    uuid: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """scheme: "GPT", "MBR" or empty. problem: why the table could not be (wholly) read."""

    scheme: str = ""
    partitions: tuple[Partition, ...] = ()
    problem: str = ""


MBR_EXTENDED: Final = frozenset({0x05, 0x0F, 0x85})
MBR_PROTECTIVE: Final = 0xEE

RAID_TYPES: Final = frozenset({"fd", "a19d880f-05fc-4d3b-a006-743f0f84911e"})
"""Linux software RAID, whose metadata may be at the partition's end."""

WITHOUT_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{f"{kind:02x}": "extended" for kind in MBR_EXTENDED},
        "42": "ldm",
        "5808c8aa-7e8f-42e0-85d2-e1e90434cfb3": "ldm-metadata",
        "af9b60a0-1431-4f62-bc68-3311714a69ad": "ldm",
    }
)
"""Types that decide the kind, whatever seems to be there: an extended partition's first sector is a
table, and a dynamic disk's partition may begin with a filesystem that goes on elsewhere."""

IF_NOTHING_ELSE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "21686148-6449-6e6f-744e-656564454649": "bios-boot",
        "e3c9e316-0b5c-4db8-817d-f92df00215ae": "ms-reserved",
        "41": "prep",
        "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "prep",
        "e75caf8f-f680-4cee-afa3-b001e56efc2d": "storage-spaces",
        "a5": "bsd",
        "a6": "bsd",
        "a9": "bsd",
        "fb": "vmfs",
        "aa31e02a-400f-11db-9590-000c2911d1b8": "vmfs",
        "fc": "vmkcore",
        "9d275380-40ad-11db-bf97-000c2911d1b8": "vmkcore",
    }
)
"""Types that explain a partition in which nothing known was found."""
