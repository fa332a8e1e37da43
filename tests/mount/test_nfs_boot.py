"""A guest runs from an export, as a hypervisor would run it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from backpoint_repo.source.detect import open_image
from exported_repository import exported, wait_for
from guest_disks import boot, build_bootable
from mounted_repository import MountedRepository
from small_repository import back_up


def test_a_guest_boots_from_nfs_and_finds_what_it_wrote(
    checked_repository: MountedRepository, tmp_path: Path
) -> None:
    """QEMU's own NFS client, a session's disk: the second boot counts the first, though the
    machine was killed and the mount was, too."""
    build_bootable(tmp_path / "guest.raw")
    with contextlib.closing(open_image(tmp_path / "guest.raw")) as source:
        back_up(checked_repository.fresh(), "guest", source)
    with exported(checked_repository) as export:
        export.live("start", "guest", "--name", "trial")
        wait_for((export.mount / "live/trial").is_dir, "no session")
        drive = f"file={export.qemu_url('live/trial/disk0-flat.vmdk')},format=raw"
        first = boot(drive, timeout_s=90, snapshot=False)
        assert first.fields["boots"] == "1"
        export.kill("mount")
        second = boot(drive, timeout_s=90, snapshot=False)
        assert second.fields["boots"] == "2"
        assert second.fields["sum"] == first.fields["sum"]
