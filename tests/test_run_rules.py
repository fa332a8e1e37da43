"""The rules of conftest.py, each broken on purpose in a run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parent


def _run(folder: Path, test: str, *, ci: bool) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file with our conftest beside it."""
    suite = folder / "suite"
    suite.mkdir()
    for name in ("conftest.py", "leftovers.py"):
        (suite / name).symlink_to(_TESTS / name)
    (suite / "test_it.py").write_text(test)
    environment = {**os.environ, "CI": "true" if ci else "", "PYTHONPATH": str(suite)}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(suite), "--basetemp", str(folder / "base"), str(suite)]
    return subprocess.run(
        command, cwd=suite, env=environment, capture_output=True, text=True, check=False
    )


_SKIPS = "import pytest\ndef test_a(): pass\n@pytest.mark.skip\ndef test_b(): pass\n"
_FAILS_AS_EXPECTED = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_a(): assert False\n"
_LEAVES_A_MOUNT = """
import subprocess
def test_a(tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
"""
_LEAVES_A_LOOP = """
import subprocess
def test_a(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    subprocess.run(["losetup", "--find", tmp_path / "disk"], check=True)
"""


def test_a_skip_fails_the_run_in_ci_only(tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "desk").mkdir()
    refused = _run(tmp_path / "ci", _SKIPS, ci=True)
    assert refused.returncode == 1
    assert "skipped in CI: test_it.py::test_b" in refused.stdout
    assert _run(tmp_path / "desk", _SKIPS, ci=False).returncode == 0


def test_a_module_that_skips_itself_fails_the_run_in_ci(tmp_path: Path) -> None:
    test = 'import pytest\npytest.skip("no", allow_module_level=True)\n'
    other = tmp_path / "suite"
    refused = _run(tmp_path, test, ci=True)
    assert other.is_dir()
    assert refused.returncode != 0
    assert "skipped in CI: test_it.py" in refused.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    assert _run(tmp_path, _FAILS_AS_EXPECTED, ci=True).returncode == 0


def test_a_mount_left_behind_fails_the_run_and_is_cleared(tmp_path: Path) -> None:
    refused = _run(tmp_path, _LEAVES_A_MOUNT, ci=False)
    assert refused.returncode == 1
    assert "left behind by this run: mount" in refused.stdout
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def test_a_loop_device_left_behind_fails_the_run_and_is_cleared(tmp_path: Path) -> None:
    refused = _run(tmp_path, _LEAVES_A_LOOP, ci=False)
    assert refused.returncode == 1
    assert "left behind by this run: loop device" in refused.stdout
    attached = subprocess.run(["losetup", "--list"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in attached.stdout


def test_ci_prints_a_seed_that_repeats_the_run(tmp_path: Path) -> None:
    run = _run(tmp_path, "def test_a(): pass\n", ci=True)
    assert "profile ci, repeat with --hypothesis-seed=" in run.stdout


def test_a_dead_mount_of_an_earlier_run_is_cleared_at_the_start(tmp_path: Path) -> None:
    dead = tmp_path / "dead mount"
    dead.mkdir()
    channel = os.open("/dev/fuse", os.O_RDWR)
    try:
        options = f"fd={channel},rootmode=40000,user_id=0,group_id=0"
        mount = ["mount", "-i", "-t", "fuse.backpoint", "-o", options, "none", str(dead)]
        subprocess.run(mount, check=True, pass_fds=[channel])
    finally:
        # The server of a mount is whoever holds its channel: closing it is the server's death.
        os.close(channel)
    run = _run(tmp_path, "def test_a(): pass\n", ci=False)
    assert run.returncode == 0
    assert f"cleared from a dead run: mount {dead}" in run.stdout
    assert "fuse.backpoint" not in [
        line.split(" - ")[1].split()[0]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(tmp_path) in line
    ]
