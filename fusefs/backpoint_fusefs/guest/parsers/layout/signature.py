"""What a volume says it is: its kind, label and UUID, in the words that blkid uses for them.

Decides how labels and UUIDs are spelt. Knows no format.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Signature:
    """kind: as in `Volume`, empty where nothing is known. size: bytes that it says it has, or 0.

    problem: why it cannot be read, where its kind alone does not say that.
    """

    kind: str = ""
    label: str = ""
    uuid: str = ""
    size: int = 0
    problem: str = ""


def uuid_text(raw: bytes) -> str:
    """16 bytes in the order in which they are printed; empty for zeros, which mean none."""
    return str(UUID(bytes=raw)) if any(raw) else ""


def label_text(raw: bytes, encoding: str = "utf-8") -> str:
    """A label up to its first NUL, without blanks at its end; what cannot be decoded or printed
    is replaced, since labels end up in messages and attributes."""
    text = raw.decode(encoding, "replace").split("\0", 1)[0].rstrip()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def serial_text(serial: int) -> str:
    """The serial number of a FAT or exFAT volume."""
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}"
