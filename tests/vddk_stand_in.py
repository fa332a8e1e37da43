#!/usr/bin/env python3
"""Takes the place of nbdkit with VMware's VDDK, which nobody may give away: same command line, same
socket, same filters, and the disk's bytes come from the simulator's datastore.

Decides whether the command line is one that the real plugin would take, and refuses any other: what
is missing, misspelt or secret in it ends the program with a word on standard error. Its own
settings are in the environment. Named `nbdkit` (by a link) it stands in for it; the real one is
found behind it on the PATH.

VDDK_STAND_IN_DATASTORES: JSON, name -> folder. VDDK_STAND_IN_PASSWORD: what must be in the file.
VDDK_STAND_IN_THUMBPRINT: the vCenter's. VDDK_STAND_IN_NOISE: printed before serving.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import NoReturn

WANTED = {
    "server": r"[\w.\-]+",
    "port": r"\d+",
    "user": r".+",
    "password": r"\+/.+",
    "thumbprint": r"[0-9A-F]{2}(:[0-9A-F]{2}){19}",
    "vm": r"moref=vm-\d+",
    "snapshot": r"snapshot-\d+",
    "transports": r"[a-z:]+",
    "file": r"\[[^\]]+\] .+\.vmdk",
    "libdir": r"/.+",
    "minblock": r"512",
    "maxdata": r"2M",
}


def main() -> NoReturn:
    words = sys.argv[1:]
    if "vddk" not in words:
        refuse("it serves vddk and nothing else")
    plugin = words.index("vddk")
    values = dict(word.split("=", 1) for word in words[plugin + 1 :])
    check_values(values)
    check_password(values["password"][1:], words)
    if noise := os.environ.get("VDDK_STAND_IN_NOISE"):
        print(noise, file=sys.stderr, flush=True)
    real = real_nbdkit()
    # One quick retry where the real one takes a minute for five.
    more = ["minblock=512", "maxdata=2M", "retries=1", "retry-delay=1"]
    disk = flat_file(values["file"])
    os.execv(real, [real, *words[:plugin], "file", str(disk), *more])


def check_values(values: dict[str, str]) -> None:
    for key, pattern in WANTED.items():
        if not re.fullmatch(pattern, values.get(key, "")):
            refuse(f"{key}={values.get(key)!r} is nothing that VDDK would take")
    if unknown := set(values) - set(WANTED) - {"compression"}:
        refuse(f"the plugin does not know {unknown}")
    if values["thumbprint"] != os.environ["VDDK_STAND_IN_THUMBPRINT"]:
        refuse("not the thumbprint of this vCenter")
    if not Path(values["libdir"]).is_dir():
        refuse("there is no VDDK")


def check_password(file: str, words: list[str]) -> None:
    """In a file that only we can reach, and nowhere else."""
    password = os.environ["VDDK_STAND_IN_PASSWORD"]
    if Path(file).read_text() != password + "\n":
        refuse("another password in the file")
    modes = (os.stat(file).st_mode, os.stat(os.path.dirname(file)).st_mode)
    if tuple(map(stat.S_IMODE, modes)) != (0o600, 0o700):
        refuse(f"others may read the password: {modes}")
    if any(password in word for word in words):
        refuse("the password is for everybody to see in the command line")


def flat_file(disk: str) -> Path:
    datastore, _, path = disk.removeprefix("[").partition("] ")
    folder = json.loads(os.environ["VDDK_STAND_IN_DATASTORES"])[datastore]
    flat = Path(folder) / path.replace(".vmdk", "-flat.vmdk")
    if not flat.is_file():
        refuse(f"there is no disk {disk}")
    return flat


def real_nbdkit() -> str:
    own = os.path.realpath(__file__)
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which("nbdkit", path=folder)
        if found and os.path.realpath(found) != own:
            return found
    refuse("no nbdkit behind the stand-in")


def refuse(why: str) -> NoReturn:
    sys.exit(f"nbdkit: error: {why}")


if __name__ == "__main__":
    main()
