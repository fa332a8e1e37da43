"""A disk that EFI boots and BIOS does not: a FAT filesystem with one small program on it.

The program says a line on the firmware's console (its screen, and the serial line) and waits for
ever. Made by hand: the smallest image of the kind PE32+ that EDK2's loader takes.
"""

from __future__ import annotations

import struct
from pathlib import Path

from guest_disks.tool import run

SAID = "EFI-GUEST-OK"

_FILE_ALIGNMENT = 0x200
# Entered with the system table in rdx; ConOut is at 64 in it, OutputString at 8 in that.
_CODE = bytes.fromhex(
    "4883ec28"  # sub rsp, 40
    "488b4a40"  # mov rcx, [rdx + 64]
    "488d1506000000"  # lea rdx, [rip + 6]: behind this code
    "ff5108"  # call [rcx + 8]
    "f4"  # wait: hlt
    "ebfd"  # jmp wait
)


def efi_program(text: str = SAID) -> bytes:
    """Prints the text."""
    body = _CODE + f"\r\n{text}\r\n\0".encode("utf-16-le")
    size = -(-len(body) // _FILE_ALIGNMENT) * _FILE_ALIGNMENT
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 112 + 16 * 8, 0x22E)
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        *(0x20B, 0, 0, size, 0, 0, _FILE_ALIGNMENT, _FILE_ALIGNMENT, 0),
        *(_FILE_ALIGNMENT, _FILE_ALIGNMENT, 0, 0, 0, 0, 0, 0, 0),
        *(_FILE_ALIGNMENT + size, _FILE_ALIGNMENT, 0, 10, 0),  # 10: an EFI application
        *(1 << 16, 1 << 16, 1 << 16, 1 << 16, 0, 16),
    )
    section = struct.pack(
        "<8sIIIIIIHHI",
        b".text",
        size,
        _FILE_ALIGNMENT,
        size,
        _FILE_ALIGNMENT,
        0,
        0,
        0,
        0,
        0x60000020,
    )
    headers = dos + coff + optional + bytes(16 * 8) + section
    return headers.ljust(_FILE_ALIGNMENT, b"\0") + body.ljust(size, b"\0")


def build_efi_guest(path: Path, size: int = 4 << 20) -> None:
    """Make `path` such a disk."""
    program = path.with_suffix(".efi")
    program.write_bytes(efi_program())
    with path.open("wb") as disk:
        disk.truncate(size)
    run("mkfs.vfat", path)
    run("mmd", "-i", path, "::EFI", "::EFI/BOOT")
    run("mcopy", "-i", path, program, "::EFI/BOOT/BOOTX64.EFI")
