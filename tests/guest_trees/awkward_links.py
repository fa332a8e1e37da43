"""Hard links without number, symbolic links of every length and direction, and special files.

Decides which links there are; their targets are text and lead wherever they like.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

from guest_trees.abilities import Abilities

_TARGET_LENGTHS = (1, 2, 58, 59, 60, 61, 155, 156, 255, 256, 999, 1000, 1023, 1024, 2000, 4095)
# (major, minor): what fits the old 8+8 bits of ext2, and the most that XFS holds (9 and 18 bits).
_DEVICES = ((1, 3), (8, 1), (255, 255), (256, 0), (259, 0), (511, 1), (1, 256), (8, 2**18 - 1))


def fill_links(folder: Path, abilities: Abilities, chance: random.Random) -> None:
    """Hard and symbolic links, devices, fifos, sockets: as far as they can be had."""
    if abilities.links:
        _hard(folder / "hard", abilities.many_links, chance)
    if abilities.symlinks:
        _symbolic(folder / "symbolic", abilities)
    if abilities.devices:
        _special(folder / "special")
        if abilities.links:
            os.link(folder / "special" / "fifo", folder / "special" / "fifo again")
    if abilities.links and abilities.symlinks:
        # A link that itself has two names.
        os.symlink("nowhere at all", folder / "link 1")
        os.link(folder / "link 1", folder / "link 2", follow_symlinks=False)


def _hard(folder: Path, count: int, chance: random.Random) -> None:
    """One file under `count` names in four folders; and one of two names that lost a third."""
    folder.mkdir()
    first = folder / "first"
    first.write_bytes(chance.randbytes(5_000))
    places = [folder / f"place {number}" for number in range(4)]
    for place in places:
        place.mkdir()
    for number in range(1, count):
        os.link(first, places[number % 4] / f"name {number}")
    if first.stat().st_nlink != count:
        raise RuntimeError(f"{first} has {first.stat().st_nlink} names, not {count}")
    pair = folder / "pair"
    pair.write_bytes(b"two names")
    os.link(pair, folder / "pair again")
    os.link(pair, folder / "pair no more")
    (folder / "pair no more").unlink()


def _symbolic(folder: Path, abilities: Abilities) -> None:
    folder.mkdir()
    (folder / "target").write_bytes(b"here")
    targets = {
        "relative": "target",
        "up": "../symbolic/target",
        "out": "../../../../../../../../etc/passwd",
        "absolute": "/etc/passwd",
        "dangling": "not there",
        "itself": "itself",
        "loop a": "loop b",
        "loop b": "loop a",
        "folder": ".",
        "odd": " a\nb\\c'd\"e ",
        "unicode": "zu den Übungen/日本",
    }
    for name, target in targets.items():
        os.symlink(target, folder / name)
    if abilities.raw_names:
        os.symlink(b"raw \xff\xfe", os.fsencode(folder / "raw"))
    for length in _TARGET_LENGTHS:
        if length <= abilities.symlink_max:
            os.symlink(("p/" * length)[:length], folder / f"length {length}")


def _special(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o640)
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o755)
    for major, minor in _DEVICES:
        device = os.makedev(major, minor)
        os.mknod(folder / f"char {major} {minor}", stat.S_IFCHR | 0o600, device)
        os.mknod(folder / f"block {major} {minor}", stat.S_IFBLK | 0o660, device)
        if os.lstat(folder / f"char {major} {minor}").st_rdev != device:
            raise RuntimeError(f"device {major}:{minor} came back as another in {folder}")
