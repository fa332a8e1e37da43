"""Who Backpoint is measured against, and how each gets onto this machine.

Decides versions and where they are kept; every package comes by name from the distribution or
from PyPI. A peer that cannot be installed is returned as a sentence, not as a tool: a benchmark
goes on without it and says so.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.bench.process import BenchFailure, Command, Runner

# What the borg packages compile against, and the tools that come ready made.
BUILD_PACKAGES = (
    *("build-essential", "pkg-config", "python3-dev", "python3-venv", "libacl1-dev"),
    *("libssl-dev", "liblz4-dev", "libzstd-dev", "libxxhash-dev", "libfuse3-dev"),
)
COMMANDS = {
    "restic": "restic",
    "qemu-storage-daemon": "qemu-system-common",
    "fio": "fio",
    "fusermount3": "fuse3",
    "mkfs.ext4": "e2fsprogs",
}
BORGS = {
    "borg 1.4": "borgbackup[pyfuse3]==1.4.*",
    # Betas from b24 on want an OpenSSL newer than Debian 12 has, and older ones name their
    # encryption differently, so this one is exact.
    "borg 2": "borgbackup[pyfuse3]==2.0.0b22",
}


@dataclass(frozen=True)
class Installed:
    """Where each tool's executable is, and one sentence for each that is missing."""

    executables: dict[str, Path]
    missing: dict[str, str]


def install(runner: Runner, cache: Path) -> Installed:
    """Make every peer available, below `cache` where it is not the distribution's."""
    found: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for command, package in COMMANDS.items():
        try:
            found[command] = _distribution_command(runner, command, package)
        except BenchFailure as failure:
            missing[command] = f"apt package {package}: {failure}"
    for name, requirement in BORGS.items():
        try:
            found[name] = _borg(runner, cache / name.replace(" ", "-"), requirement)
        except BenchFailure as failure:
            missing[name] = f"{requirement}: {failure}"
    backpoint = _own_command("backpoint")
    if backpoint is None:
        missing["backpoint"] = "no `backpoint` in this environment; run tools/setup"
    else:
        found["backpoint"] = backpoint
    return Installed(found, missing)


def versions(runner: Runner, installed: Installed) -> dict[str, str]:
    """The first line each tool says about its version."""
    asked = {"restic": "version"}
    said: dict[str, str] = {}
    for name, path in installed.executables.items():
        if name in ("fusermount3", "mkfs.ext4"):
            continue
        try:
            words, _ = runner.output(Command((str(path), asked.get(name, "--version"))))
            said[name] = words.strip().splitlines()[0]
        except (BenchFailure, IndexError) as failure:
            said[name] = f"unknown ({str(failure).splitlines()[0]})"
    return said


def _own_command(name: str) -> Path | None:
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return beside
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None


def _distribution_command(runner: Runner, command: str, package: str) -> Path:
    if shutil.which(command) is None:
        _apt_install(runner, (package,))
    path = shutil.which(command)
    if path is None:
        raise BenchFailure(f"installed, but there is no {command}")
    return Path(path)


def _apt_install(runner: Runner, packages: tuple[str, ...]) -> None:
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    # On a bare machine the package lists are absent or older than the mirror.
    runner.run(Command(("apt-get", "update", "-q"), env=env))
    runner.run(
        Command(("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages), env=env)
    )


def _borg(runner: Runner, venv: Path, requirement: str) -> Path:
    """The stamp is written last, so a half-made environment is made anew."""
    executable = venv / "bin" / "borg"
    stamp = venv / "requirement"
    if stamp.exists() and stamp.read_text() == requirement and os.access(executable, os.X_OK):
        return executable
    print(f"installing {requirement}", flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    _apt_install(runner, BUILD_PACKAGES)
    runner.run(Command((sys.executable, "-m", "venv", str(venv))))
    runner.run(Command((str(venv / "bin" / "pip"), "install", "-q", requirement)))
    runner.run(Command((str(executable), "--version")))
    stamp.write_text(requirement)
    return executable
