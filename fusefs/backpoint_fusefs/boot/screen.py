"""What is on a machine's screen, as far as a program can tell: blank, moving or standing still.

Decides when two pictures are the same but for a blinking cursor. Pure; pictures are binary PPMs
that QEMU made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_HEADER: Final = re.compile(rb"P6\s(\d{1,5})\s(\d{1,5})\s255\s")
_CURSOR: Final = 32
"""Points: no text cursor is wider or higher."""


@dataclass(frozen=True)
class Picture:
    """width, height: points. pixels: three bytes each."""

    width: int
    height: int
    pixels: bytes

    @property
    def is_blank(self) -> bool:
        """One colour, but for what may be a cursor."""
        colour = self.pixels[-3:]  # a cursor is rarely in the last corner
        return self.same_as(Picture(self.width, self.height, colour * (len(self.pixels) // 3)))

    def same_as(self, other: Picture) -> bool:
        """But for a cursor that blinks."""
        if (self.width, self.height) != (other.width, other.height):
            return False
        if self.pixels == other.pixels:
            return True
        row = 3 * self.width
        changed = [
            at
            for at in range(0, len(self.pixels), row)
            if self.pixels[at : at + row] != other.pixels[at : at + row]
        ]
        if changed[-1] - changed[0] >= _CURSOR * row:
            return False
        spans = [_span(self.pixels[at : at + row], other.pixels[at : at + row]) for at in changed]
        return max(last for _, last in spans) - min(first for first, _ in spans) < 3 * _CURSOR


def parse_picture(ppm: bytes) -> Picture | None:
    """None where it is no picture."""
    header = _HEADER.match(ppm)
    if header is None:
        return None
    width, height, pixels = int(header[1]), int(header[2]), ppm[header.end() :]
    if not width or not height or len(pixels) != 3 * width * height:
        return None
    return Picture(width, height, pixels)


def _span(one: bytes, other: bytes) -> tuple[int, int]:
    """First and last byte that differ; some do."""
    differ = [at for at, (left, right) in enumerate(zip(one, other, strict=True)) if left != right]
    return differ[0], differ[-1]
