"""KVM is used where it truly runs a guest, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backpoint_fusefs.boot.accelerator import Accelerator, find_accelerator, try_guest
from backpoint_fusefs.boot.qemu_process import qemu_program
from backpoint_fusefs.boot.trial_sector import TRIAL_SECTOR

TCG = Accelerator("tcg")


def test_the_trial_is_a_boot_sector_that_a_cpu_gets_through() -> None:
    """QEMU's own translation is one."""
    assert len(TRIAL_SECTOR) == 512
    assert try_guest(qemu_program(), TCG, limit_s=60) == ""


def test_what_is_found_gets_a_guest_through() -> None:
    """Where /dev/kvm only looks like KVM, that is why it is not used."""
    found = find_accelerator(qemu_program())
    assert try_guest(qemu_program(), found, limit_s=60) == ""
    assert (found.kind == "kvm") == (not found.why_not_kvm)
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert "/dev/kvm" in found.why_not_kvm


def test_a_guest_that_does_not_get_through_is_told() -> None:
    """One that hangs does not hang us; QEMU's own words are the reason."""
    assert "did not end in 0.01 s" in try_guest(qemu_program(), TCG, limit_s=0.01)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'KVM internal error.\n  more'; exit 3", "ended with code 3: KVM internal error."),
        ("exit 0", "ended with code 0"),
        ("printf 'a\\033[2Jb'; exit 1", "code 1: a?[2Jb"),
    ],
)
def test_a_qemu_that_gives_up_is_quoted(tmp_path: Path, script: str, why: str) -> None:
    """Its first line, safe for a terminal."""
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    assert try_guest(str(program), Accelerator("kvm")).endswith(why)
    assert "cannot be started" in try_guest(str(tmp_path / "none"), TCG)
