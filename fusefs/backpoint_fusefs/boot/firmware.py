"""The EFI firmware for a machine: which of Debian's files, and where its own variables are kept.

Decides by secure boot. The variables of VMware's firmware cannot be used by this one, so each
machine begins with fresh ones.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backpoint_fusefs.boot.errors import MachineFailed
from backpoint_fusefs.boot.hardware import Hardware

_FOLDER: Final = Path("/usr/share/OVMF")


@dataclass(frozen=True)
class FirmwareFiles:
    """code: never written. variables: written by the machine."""

    code: Path
    variables: Path


def prepare_firmware(
    hardware: Hardware, scratch: Path, folder: Path = _FOLDER
) -> FirmwareFiles | None:
    """None for BIOS, which QEMU brings along. Raises MachineFailed where there is no firmware."""
    if hardware.firmware == "bios":
        return None
    code, fresh = (
        ("OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd")
        if hardware.secure_boot
        else ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
    )
    variables = scratch / "efi-variables.fd"
    try:
        (folder / code).stat()
        shutil.copyfile(folder / fresh, variables)
    except FileNotFoundError:
        raise MachineFailed(
            f"the VM boots by EFI, and there is no {folder / code} or no {fresh}: install the "
            "Debian package ovmf"
        ) from None
    except OSError as error:
        raise MachineFailed(f"cannot prepare the EFI firmware: {error}") from error
    return FirmwareFiles(folder / code, variables)
