"""The steps that get something back, and what each must prove: a file, a folder, a new VM, the old
VM after an intruder was there.
"""

from __future__ import annotations

import random
from pathlib import Path

from tools.backup_steps import NOTE
from tools.play import Play
from tools.vcenter_scene import DATA_SIZE

from guest_disks import mounted

_MIB = 1 << 20
_COPY = "web01-restored"
_SPOILT_BYTES = 24 * _MIB
# What every command ends with when the key at hand is not enough.
_KEY_FAULT = 5


def refuse_the_agent(play: Play) -> None:
    """Whoever steals the agent's machine gets no disk."""
    stage = play.stage
    with stage.step("the agent's key does not read"):
        stolen = play.folder / "stolen.raw"
        only_agent = {
            "BACKPOINT_CREDENTIAL": str(play.folder / "agent.credential"),
            "BACKPOINT_PASSPHRASE_FILE": None,
        }
        restore = ("restore", "web01@latest", "--disk", "1", "-o", stolen)
        stage.run_refused("backpoint", *restore, code=_KEY_FAULT, environment=only_agent)
        stage.require(not stolen.exists(), "the agent's restore left a file")


def copy_files_out(play: Play) -> None:
    stage, point = play.stage, play.point("web01")
    with stage.step("copy one file out of the guest"):
        stage.run("ls", "-l", point / "guest")
        first = sorted(path for path in point.parent.iterdir() if not path.is_symlink())[0]
        there = (first / "guest/root" / NOTE).exists()
        stage.require(not there, "the first point has a note from the future")
        copy = play.folder / "copy of the note"
        stage.run("cp", "--preserve=all", point / "guest/root" / NOTE, copy)
        with mounted(play.vcenter.disk("web01", 0).resolve(), read_only=True) as root:
            stage.run("cmp", root / NOTE, copy)
        stage.note(copy.read_text().strip())
    with stage.step("every file of the guest is as the kernel's own driver shows it"):
        with mounted(play.vcenter.disk("web01", 1).resolve(), read_only=True) as original:
            same = ("-aHAXn", "--checksum", "--delete", "--itemize-changes")
            said = stage.run("rsync", *same, f"{original}/", f"{point}/guest/disk1-p1/")
        stage.require(not said, "rsync would change something")


def restore_as_new(play: Play) -> None:
    """Its disks equal the point's and the original's."""
    stage, vcenter = play.stage, play.vcenter
    with stage.step("restore web01 as a new VM and power it on"):
        new = ("--to", "new", "--name", _COPY, "--transport", "import", "--power-on")
        play.agent("restore", "web01@latest", *new)
        stage.require(vcenter.power(_COPY) == "poweredOn", "the new VM does not run")
        for number in range(2):
            disk = vcenter.disk(_COPY, number)
            stage.run("cmp", disk, play.point("web01") / f"disk{number}-flat.vmdk")
            stage.run("cmp", disk, vcenter.disk("web01", number))


def restore_over(play: Play) -> None:
    """The original is written where it differs, and nowhere else."""
    stage, vcenter = play.stage, play.vcenter
    with stage.step("an intruder spoils web01's disk: write the point over it"):
        _spoil(vcenter.disk("web01", 1))
        stage.note(f"{_SPOILT_BYTES / _MIB:.0f} MiB of web01's second disk are noise now")
        vcenter.power_off("web01")
        over = ("--to", "existing", "--yes", "--power-on")
        said = play.agent("restore", "web01@latest", *over)
        written = f"{_SPOILT_BYTES / _MIB:.1f} MiB written"
        stage.require(written in said, "more or less was written than had been spoilt")
        play.compare("web01")


def _spoil(disk: Path) -> None:
    noise = random.Random("intruder")
    with disk.open("r+b") as file:
        for place in noise.sample(range(DATA_SIZE // _MIB), _SPOILT_BYTES // _MIB):
            file.seek(place * _MIB)
            file.write(noise.randbytes(_MIB))
