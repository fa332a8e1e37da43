"""The folder of an export: one at a time, private, and empty in the end."""

from __future__ import annotations

import stat
import subprocess
import uuid
from pathlib import Path

import pytest

from backpoint_fusefs.nfs.anchor_device import attached, make_anchor
from backpoint_fusefs.nfs.export_folder import folder_of, taken
from backpoint_repo.errors import UsageError

_ID = bytes(range(16))


def _devices_of(image: Path) -> list[str]:
    words = ["losetup", "-n", "-O", "NAME", "-j", str(image)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


def test_it_is_private_and_nothing_of_it_stays(tmp_path: Path) -> None:
    """Only its owner reads it; what was in it goes with the export."""
    folder = folder_of(_ID, tmp_path)
    with taken(folder):
        assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
        folder.config.write_text("secret")
        (folder.clients / "deep").mkdir()
    assert not folder.root.exists()


def test_a_repository_is_exported_once(tmp_path: Path) -> None:
    """The second is refused with the way to find the first; another repository is not hindered."""
    folder = folder_of(_ID, tmp_path)
    with taken(folder):
        with pytest.raises(UsageError, match="--status"), taken(folder):
            pass
        assert folder.mount.is_dir()
        with taken(folder_of(bytes(16), tmp_path)):
            pass


def test_what_a_killed_one_left_is_cleared(tmp_path: Path) -> None:
    """Its files and its block device; a new export finds an empty folder."""
    folder = folder_of(_ID, tmp_path)
    folder.mount.mkdir(parents=True)
    folder.root.chmod(0o700)
    folder.state.write_text("{}")
    make_anchor(folder.anchor, uuid.uuid4())
    subprocess.run(["losetup", "--find", str(folder.anchor)], check=True)
    assert _devices_of(folder.anchor)
    with taken(folder):
        assert not folder.state.exists()
        assert not folder.anchor.exists()
    assert not _devices_of(folder.anchor)


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_reach_is_not_used(tmp_path: Path, mode: int) -> None:
    """Somebody else may have made it, and would see the mount."""
    folder = folder_of(_ID, tmp_path)
    folder.root.mkdir()
    folder.root.chmod(mode)
    with pytest.raises(UsageError, match="private"), taken(folder):
        pass


def test_the_anchor_is_known_by_its_uuid_and_detaches_by_itself(tmp_path: Path) -> None:
    """Servers find the UUID by blkid; nothing stays attached."""
    image, identity = tmp_path / "anchor.img", uuid.uuid4()
    make_anchor(image, identity)
    with attached(image) as device:
        words = ["blkid", "-c", "/dev/null", "-s", "UUID", "-o", "value", device]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert uuid.UUID(said.strip()) == identity
    assert not _devices_of(image)
