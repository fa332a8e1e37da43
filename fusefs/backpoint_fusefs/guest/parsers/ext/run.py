"""A run of a file's blocks that lie beside each other on the volume."""

from __future__ import annotations

from typing import NamedTuple


class Run(NamedTuple):
    """The file's blocks [logical, logical + blocks) are the volume's from `physical` on."""

    logical: int
    physical: int
    blocks: int
