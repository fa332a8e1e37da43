"""The steps of a repository's years: points go by rule, their space comes back under a standing
mount, rot is found and healed. What each must prove is with the step.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from tools.play import Play

_HELD: Final = "db01@0"
_RULE: Final = ("--keep-last", "1")
_DAMAGED: Final = 1
_PLACES: Final = 6


def thin_out(play: Play) -> None:
    """The rule would take the held point, too; what it keeps it keeps for a reason."""
    stage = play.stage
    with stage.step("hold db01's first point, and prune by rule: the dry run says why each stays"):
        stage.run("backpoint", "hold", _HELD, "--why", "before the migration")
        stage.run("backpoint", "prune", *_RULE, "--dry-run")
        before = _points(play)
        stage.run("backpoint", "prune", *_RULE)
        after = _points(play)
        stage.require(len(after) < len(before), "nothing was pruned")
        held = min(point["time"] for point in before if point["vm"] == "db01")
        stage.require(any(point["time"] == held for point in after), "the held point is gone")


def give_space_back(play: Play) -> None:
    """The mount stands all the while, and every byte of what is left reads as before."""
    stage = play.stage
    with stage.step("collect: the space of pruned points comes back, under the standing mount"):
        stage.run("backpoint", "leases")
        before = _stored(play)
        stage.run("backpoint", "collect", "--max-repack", "1G")
        stage.note(f"the packs took {before:,} bytes, and take {_stored(play):,} now")
        stage.require(_stored(play) < before, "nothing was freed")
        stage.run("backpoint", "check", "--read-data")


def rot_and_heal(play: Play) -> None:
    """Bytes of the largest pack change on the disk, as bytes do."""
    stage = play.stage
    with stage.step("spare packs: any two of six may be lost or rot"):
        stage.run("backpoint", "parity", "--set", "4+2")
    with stage.step("stored bytes rot: scrub finds them, and says whom they hurt"):
        _rot(max(_packs(play), key=lambda pack: pack.stat().st_size))
        said = stage.run("backpoint", "scrub", code=_DAMAGED)
        stage.require(re.search(r"(web01|web02|db01)@", said) is not None, "no point is named")
    with stage.step("heal it from the spare packs; then every stored byte is right again"):
        stage.run("backpoint", "heal")
        stage.run("backpoint", "check", "--read-data")


def _rot(pack: Path) -> None:
    """In several places, because no point may need what lies in one of them."""
    size = pack.stat().st_size
    with pack.open("r+b") as file:
        for part in range(1, _PLACES):
            file.seek(size * part // _PLACES)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0xFF]))


def _points(play: Play) -> list[dict[str, Any]]:
    told = json.loads(play.stage.run("backpoint", "points", "--json", hidden=".*"))
    points: list[dict[str, Any]] = told["points"]
    return points


def _packs(play: Play) -> list[Path]:
    return [path for path in (play.folder / "repository" / "packs").glob("*/*") if path.is_file()]


def _stored(play: Play) -> int:
    return sum(pack.stat().st_size for pack in _packs(play))
