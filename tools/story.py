"""The demo: running VMs of a vCenter are backed up, changed, backed up again, mounted, run
from the backup and restored; what was kept is thinned out, scrubbed and healed, and copied to an
object store.

Decides the order of the steps; what each must prove is with the step, and a step that proves
nothing is not here. Talks to Backpoint only through its command line, as a user would, and to the
vCenter, which is a simulator with real guest disks, as its guests and administrator would.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tools import backup_steps, lifecycle_steps, live_steps, off_site_steps, restore_steps
from tools.demo_config import SESSIONS
from tools.play import Play, unmounted_at_the_end
from tools.stage import Stage, StepFailed
from tools.vcenter_scene import running_scene

from leftovers import clear, find_leftovers


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
        clear(find_leftovers(within=folder))
        if asked.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)
    stage.conclude(f"all steps done in {stage.seconds:.0f} s", good=True)
    return 0


def _environment(folder: Path) -> dict[str, str]:
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(secrets.token_urlsafe(16) + "\n")
    # Mount points of guest disks, too, are to be found and cleared away at the end.
    tempfile.tempdir = str(folder / "scratch")
    os.mkdir(tempfile.tempdir)
    ours = {key: value for key, value in os.environ.items() if not key.startswith("BACKPOINT_")}
    return ours | {
        "BACKPOINT_REPO": str(folder / "repository"),
        "BACKPOINT_PASSPHRASE_FILE": str(passphrase),
        "BACKPOINT_CONFIG": str(folder / "backpoint.toml"),
        "BACKPOINT_CACHE": str(folder / "cache"),
        "BACKPOINT_LIVE": str(folder / SESSIONS),
        "XDG_STATE_HOME": str(folder),
    }


def _tell(stage: Stage, folder: Path) -> None:
    with contextlib.ExitStack() as opened:
        with stage.step("a vCenter with four running VMs; one of them boots and has many files"):
            play = Play(stage, folder, opened.enter_context(running_scene(folder)))
        opened.enter_context(unmounted_at_the_end(play))
        _back_up(play)
        _get_back(play)
        _keep_for_years(play)
        _end(play)


def _back_up(play: Play) -> None:
    backup_steps.make_repository(play)
    backup_steps.configure(play)
    backup_steps.look_around(play)
    backup_steps.back_up_first(play)
    backup_steps.let_a_day_pass(play)
    backup_steps.back_up_changes(play)
    backup_steps.catch_a_lie(play)
    backup_steps.kill_and_reap(play)


def _get_back(play: Play) -> None:
    restore_steps.refuse_the_agent(play)
    restore_steps.copy_files_out(play)
    restore_steps.restore_as_new(play)
    restore_steps.restore_over(play)
    live_steps.prove(play)
    live_steps.try_and_keep(play)
    live_steps.run_in_vcenter(play)


def _keep_for_years(play: Play) -> None:
    lifecycle_steps.thin_out(play)
    lifecycle_steps.give_space_back(play)
    lifecycle_steps.rot_and_heal(play)
    off_site_steps.take_off_site(play)


def _end(play: Play) -> None:
    stage = play.stage
    with stage.step("where all stands; every stored byte is checked"):
        play.agent("status")
        stage.run("backpoint", "check", "--read-data")
        stage.run("backpoint", "stats", shown_lines=5)
    with stage.step("unmount"):
        stage.run("backpoint", "umount", play.mount)
        stage.require(not play.is_mounted, f"{play.mount} is still mounted")


if __name__ == "__main__":
    sys.exit(main())
