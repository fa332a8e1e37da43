"""A tree of every awkward case that a filesystem can hold, drawn from a seed.

Decides which groups of cases there are. What one cannot make there, raises: nothing is left out
silently but what the abilities rule out.
"""

from __future__ import annotations

import random
from pathlib import Path

from guest_trees.abilities import Abilities
from guest_trees.awkward_attributes import fill_attributes
from guest_trees.awkward_content import fill_content
from guest_trees.awkward_links import fill_links
from guest_trees.awkward_names import fill_names
from guest_trees.writeback import write_back

__all__ = ["Abilities", "fill"]


def fill(root: Path, abilities: Abilities, seed: int = 1) -> None:
    """Add the cases below the mounted folder `root`, each group in a folder of its own.

    Raises OSError or RuntimeError for what the driver refuses or does not keep.
    """
    for name, fill_group in (
        ("content", fill_content),
        ("names", fill_names),
        ("links", fill_links),
        ("attributes", fill_attributes),
    ):
        folder = root / name
        folder.mkdir()
        fill_group(folder, abilities, random.Random(f"{seed} {name}"))
    write_back(root)
