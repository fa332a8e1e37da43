"""The kernel that bootable guests run: Debian's cloud kernel, fetched once and kept.

Decides which files of the package are needed and where they are kept. Knows nothing of disks.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from guest_disks.tool import run

_META_PACKAGE = "linux-image-cloud-amd64"

# In the order in which they must be loaded: each needs some of those before it.
MODULES = (
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "libata",
    "ata_piix",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "vmw_pvscsi",
    "vmxnet3",
)


@dataclass(frozen=True)
class Kernel:
    """Where the kernel image lies, and its modules in loading order (those not built in)."""

    image: Path
    modules: tuple[Path, ...]


def fetch_kernel() -> Kernel:
    """The kernel from the cache; the first time it is downloaded with apt. Raises RuntimeError."""
    kept = _cache_folder() / f"kernel-{len(MODULES)}"  # an older one has fewer modules
    if not kept.is_dir():
        _fill(kept)
    modules = (kept / f"{name}.ko" for name in MODULES)
    return Kernel(kept / "vmlinuz", tuple(path for path in modules if path.is_file()))


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "backpoint-guest-disks"


def _fill(kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        package = _download(Path(scratch))
        ready = Path(scratch) / "ready"
        ready.mkdir()
        _extract(package, ready)
        try:
            ready.rename(kept)
        except OSError:
            # Another process was faster: its files are as good as ours.
            if not kept.is_dir():
                raise


def _download(folder: Path) -> Path:
    try:
        name = _package_name()
    except LookupError:
        # A fresh Debian has no package lists yet.
        run("apt-get", "update", "-q")
        name = _package_name()
    run("apt-get", "download", "-q", name, folder=folder)
    (package,) = folder.glob("*.deb")
    return package


def _package_name() -> str:
    depends = subprocess.run(
        ["apt-cache", "depends", _META_PACKAGE], capture_output=True, text=True, check=False
    ).stdout
    for line in depends.splitlines():
        relation, _, package = line.strip().partition(": ")
        if relation == "Depends" and package.startswith("linux-image-"):
            return package
    raise LookupError(f"apt knows no package {_META_PACKAGE}")


def _extract(package: Path, into: Path) -> None:
    tree = into.parent / "tree"
    run("dpkg-deb", "--extract", package, tree)
    (image,) = (tree / "boot").glob("vmlinuz-*")
    image.rename(into / "vmlinuz")
    for found in tree.rglob("*.ko"):
        if found.stem in MODULES:
            found.rename(into / found.name)
