"""The steps that run a VM from its backup, and what each must prove: it boots, what it writes stays
in its session until somebody wants it, and in a vCenter it runs as any other VM.
"""

from __future__ import annotations

import json
import re
from typing import Final

from tools.play import Play

_MIB: Final = 1 << 20
_MEMORY: Final = "256M"
_LIMIT_S: Final = "120"
_MARKER: Final = "BOOT-OK"
_SESSION: Final = "trial"
_HOST: Final = "DC0_C0_H0"


def prove(play: Play) -> None:
    """The proof lies beside the point, for everybody to see."""
    stage = play.stage
    with stage.step("prove web01's backup: all of it reads, its files list, and it boots"):
        boot = ("--level", "boot", "--sign-text", _MARKER, "--memory", _MEMORY)
        said = stage.run("backpoint", "prove", "web01", *boot, "--timeout", _LIMIT_S)
        stage.require("vm=web01" in said, "another guest has booted")
        stage.run("backpoint", "points", "web01")
        told = json.loads(play.proof("web01").read_text())
        stage.require(told["proved_level"] == "boot", "the mount does not tell the proof")


def try_and_keep(play: Play) -> None:
    """What the guest wrote is there at its second boot, and in the point made of it."""
    stage = play.stage
    with stage.step("run web01 from its backup, twice; the second boot finds what the first wrote"):
        stage.run("backpoint", "live", "start", "web01@latest", "--name", _SESSION)
        boots = [_boot(play) for _ in range(2)]
        stage.note(f"the guest counts its boots on its disk: {boots}")
        stage.require(
            boots[1] == boots[0] + 1, "the second boot did not find the first one's count"
        )
    with stage.step("make a restore point of it: only what was written is read and stored"):
        said = stage.run("backpoint", "live", "commit", _SESSION, "--label", "after the trial")
        play.newest["web01"] = re.findall(r"web01@(\S+Z)", said)[0]
        count = (play.point("web01") / "guest/root/var/log/boots").read_text()
        stage.require(int(count) == boots[1], "the new point's guest has another count")
        stage.run("backpoint", "live", "discard", _SESSION, "--yes")


def _boot(play: Play) -> int:
    """How often the guest says it has booted."""
    words = ("boot", "--session", _SESSION, "--memory", _MEMORY, "--until", _MARKER)
    said = play.stage.run("backpoint", *words, "--timeout", _LIMIT_S)
    return int(re.findall(r"boots=(\d+)", said)[0])


def run_in_vcenter(play: Play) -> None:
    """Its disks are the point's; what it writes there is gone with it."""
    stage, vcenter = play.stage, play.vcenter
    with stage.step("instant recovery: web01 runs in the vCenter from the backup, nothing copied"):
        where = ("--vcenter", "--host", _HOST, "--isolated", "--name", "web01-instant")
        said = stage.run("backpoint", "boot", "web01@latest", *where)
        stage.require(vcenter.power("web01-instant") == "poweredOn", "the VM does not run")
        session = re.findall(r"session (\S+)", said)[0]
        for number in range(2):
            disk = play.mount / "live" / session / f"disk{number}-flat.vmdk"
            stage.run("cmp", disk, play.point("web01") / f"disk{number}-flat.vmdk")
    with stage.step("end it: the VM, its datastore and its session are gone"):
        stage.run("backpoint", "live", "end", session)
        stage.require("web01-instant" not in vcenter.names(), "the VM is still registered")
