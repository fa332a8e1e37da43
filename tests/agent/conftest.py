"""A vCenter and a guest's disk for the agent's tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vcsim import Simulator, running_simulator

GUEST_IMAGE_SIZE = 16 << 20


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Simulator]:
    """A vCenter of two running VMs; another one is `running_simulator(folder, vms=..., ...)`."""
    with running_simulator(tmp_path / "vcsim") as running:
        yield running


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse ext4 disk of 16 MiB with some files; `attach` copies it, so leave it as it is."""
    folder = tmp_path_factory.mktemp("guest")
    tree = folder / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "hostname").write_text("guest\n")
    (tree / "hello").write_text("hello\n" * 1000)
    (tree / "noise").write_bytes(bytes(range(256)) * 2048)
    image = folder / "guest.img"
    with image.open("wb") as disk:
        disk.truncate(GUEST_IMAGE_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(image)], check=True)
    return image
