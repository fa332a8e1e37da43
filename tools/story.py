"""The demo: two disks are backed up, changed, backed up again, mounted, read, restored and booted.

Decides the order of the steps and what each must prove; a step that proves nothing is not here.
Talks to Backpoint only through its command line, as a user would.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.stage import Stage, StepFailed

from guest_disks import boot, build_bootable, build_data_disk, change_data_disk, mounted
from guest_disks.boot import NoMarker

_MIB = 1 << 20
_SYSTEM_BYTES = 64 * _MIB
_DATA_BYTES = 1024 * _MIB
_DATA_FILES_BYTES = 300 * _MIB
_VM = "web01"
_LATEST = f"{_VM}@latest"
_NOTE = Path("home/alice/docs/today.txt")
_BOOT_LIMIT_S = 120
_UMOUNT_LIMIT_S = 60
# What every command ends with when the key at hand is not enough.
_KEY_FAULT = 5


def main() -> int:
    """Tell the story in a temporary folder and clean up after it. The exit code: 0, 1 or 130."""
    parser = argparse.ArgumentParser(prog="tools/demo", description="Show Backpoint on real disks.")
    parser.add_argument("--keep", action="store_true", help="keep the folder with disks and all")
    asked = parser.parse_args()
    # A terminated demo must unmount just as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="backpoint-demo-"))
    stage = Stage(folder, _environment(folder))
    try:
        _tell(stage, folder)
    except (StepFailed, KeyboardInterrupt) as stop:
        interrupted = isinstance(stop, KeyboardInterrupt)
        text = f"interrupted in step: {stage.step_name}" if interrupted else str(stop)
        stage.conclude(text, good=False)
        return 130 if interrupted else 1
    finally:
        if asked.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    stage.conclude(f"all steps done in {stage.seconds:.0f} s", good=True)
    return 0


def _environment(folder: Path) -> dict[str, str]:
    passphrase = folder / "passphrase"
    passphrase.write_text(secrets.token_urlsafe(16) + "\n")
    passphrase.chmod(0o600)
    ours = {key: value for key, value in os.environ.items() if not key.startswith("BACKPOINT_")}
    return ours | {
        "BACKPOINT_REPO": str(folder / "repository"),
        "BACKPOINT_PASSPHRASE_FILE": str(passphrase),
    }


def _tell(stage: Stage, folder: Path) -> None:
    system, data = folder / "system.raw", folder / "data.raw"
    with stage.step("make two guest disks: one that boots, one full of files"):
        build_bootable(system, _SYSTEM_BYTES, hostname=_VM)
        build_data_disk(data, _DATA_BYTES, seed=1, files_total_bytes=_DATA_FILES_BYTES)
        stage.run("ls", "-lsh", system, data)
    with stage.step("make a repository"):
        stage.run("backpoint", "init", "--recovery-key", folder / "recovery.key")
    with stage.step("first backup: everything is new"):
        stage.run("backpoint", "backup", "image", "--vm", _VM, system, data)
    with stage.step("a day passes in the guest"):
        _let_a_day_pass(stage, system, data)
    with stage.step("second backup: only what is new is stored"):
        stage.run("backpoint", "backup", "image", "--vm", _VM, system, data)
    _show_agent(stage, folder, system, data)
    with stage.step("what there is"):
        stage.run("backpoint", "points")
        stage.run("backpoint", "show", _LATEST)
    mount = folder / "backups"
    mount.mkdir()
    with _unmounted_at_the_end(mount):
        _show_mount(stage, folder, mount, (system, data))
    with stage.step("check every stored byte"):
        stage.run("backpoint", "check", "--read-data")
        stage.run("backpoint", "stats")


def _let_a_day_pass(stage: Stage, system: Path, data: Path) -> None:
    with mounted(system) as root:
        (root / _NOTE).write_text("written between the first backup and the second\n")
    day = change_data_disk(data, 1)
    stage.note(f"in system.raw: {_NOTE} added")
    changed = len(day.appended) + len(day.rewritten)
    stage.note(
        f"in data.raw: {changed} files changed, {len(day.deleted)} deleted, {len(day.added)} added,"
        f" {day.bytes_written / _MIB:.1f} MiB written"
    )


def _show_agent(stage: Stage, folder: Path, system: Path, data: Path) -> None:
    credential = folder / "agent.credential"
    agent = {"BACKPOINT_CREDENTIAL": str(credential), "BACKPOINT_PASSPHRASE_FILE": None}
    with stage.step("a credential that can back up"):
        stage.run("backpoint", "key", "export-agent", "-o", credential)
        backup = ("backup", "image", "--vm", _VM, "--label", "by the agent", system, data)
        stage.run("backpoint", *backup, environment=agent)
    with stage.step("and cannot read"):
        stolen = folder / "stolen.raw"
        restore = ("restore", _LATEST, "--disk", "1", "-o", stolen)
        stage.run_refused("backpoint", *restore, code=_KEY_FAULT, environment=agent)
        stage.require(not stolen.exists(), "the agent's restore left a file")


def _show_mount(stage: Stage, folder: Path, mount: Path, disks: tuple[Path, Path]) -> None:
    point = mount / "vms" / _VM / "latest"
    with stage.step("mount all points"):
        stage.run("backpoint", "mount", mount)
        stage.require(_is_mounted(mount), f"{mount} is not a mount point")
        inside = ("-path", "*/guest/*", "-prune", "-o")
        stage.run("find", mount, *inside, "-printf", r"%y %11s  %P %l\n", shown_lines=40)
    with stage.step("the mounted disks are the guest's, byte for byte"):
        for number, disk in enumerate(disks):
            stage.run("cmp", disk, point / f"disk{number}-flat.vmdk")
        stage.run("qemu-img", "info", point / "disk1.vmdk")
    with stage.step("copy one file out of the guest, from each of its points"):
        _copy_file_out(stage, folder, point)
    with stage.step("every file of the guest is as the kernel's own driver shows it"):
        with mounted(disks[1], read_only=True) as original:
            same = ("-aHAXn", "--checksum", "--delete", "--itemize-changes")
            said = stage.run("rsync", *same, f"{original}/", f"{point}/guest/disk1-p1/")
        stage.require(not said, "rsync would change something")
    with stage.step("the same without a mount"):
        stage.run("backpoint", "ls", "-l", f"{_LATEST}:disk0-p1/{_NOTE.parent}")
        stage.run("backpoint", "cp", f"{_LATEST}:disk0-p1/{_NOTE}", "-")
        stage.run("backpoint", "diff", f"{_VM}@0", _LATEST, code=1, shown_lines=12)
    with stage.step("restore a disk to qcow2 and compare"):
        restored = folder / "restored.qcow2"
        restore = ("restore", _LATEST, "--disk", "1", "-o", restored, "--format", "qcow2")
        stage.run("backpoint", *restore)
        stage.run("qemu-img", "compare", restored, point / "disk1.vmdk")
    with stage.step("boot the guest from its backup; what it writes is thrown away"):
        try:
            report = boot(f"file={point / 'disk0.vmdk'},format=vmdk", timeout_s=_BOOT_LIMIT_S)
        except NoMarker as silent:
            raise RuntimeError(str(silent)) from silent
        stage.note(report.line)
        stage.note(f"{report.seconds:.1f} s from the start of QEMU to this line")
        stage.require(report.fields["vm"] == _VM, "another guest has booted")
    with stage.step("unmount"):
        stage.run("backpoint", "umount", mount)
        stage.require(not _is_mounted(mount), f"{mount} is still mounted")


def _copy_file_out(stage: Stage, folder: Path, point: Path) -> None:
    stage.run("ls", "-l", point / "guest")
    before = sorted(path for path in point.parent.iterdir() if not path.is_symlink())[0]
    stage.require(not (before / "guest/disk0-p1" / _NOTE).exists(), "a note from the future")
    copy = folder / "copy of the note"
    stage.run("cp", "--preserve=all", point / "guest/disk0-p1" / _NOTE, copy)
    stage.note(copy.read_text().strip())


@contextlib.contextmanager
def _unmounted_at_the_end(mount: Path) -> Iterator[None]:
    """Take `mount` away, whatever happened; a mount that still answers is ended in its own way."""
    try:
        yield
    finally:
        if _is_mounted(mount):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(["backpoint", "umount", mount], check=False, timeout=_UMOUNT_LIMIT_S)
            if _is_mounted(mount):
                subprocess.run(["umount", "--lazy", mount], check=False)


def _is_mounted(mount: Path) -> bool:
    # Not os.path.ismount: it asks the mount itself, and a dead one answers with an error.
    table = Path("/proc/self/mountinfo").read_text()
    return str(mount) in (line.split()[4] for line in table.splitlines())


if __name__ == "__main__":
    sys.exit(main())
