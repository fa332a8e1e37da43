"""A .vmx as settings that can be asked for: texts, switches, numbers.

Decides what counts when a key stands there twice, and what is no number. How the text is read is in
`backpoint_repo.vmx_lines`; what a key means is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backpoint_repo.vmx_lines import VMX_SIZE_MAX as VMX_SIZE_MAX
from backpoint_repo.vmx_lines import read_vmx


@dataclass(frozen=True)
class Settings:
    """values: by key in lower case, since VMware does not tell cases apart. notes: for the user."""

    values: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def text(self, key: str) -> str:
        """Empty where it is not set."""
        return self.values.get(key.lower(), "")

    def switch(self, key: str) -> bool | None:
        """None where it says neither TRUE nor FALSE."""
        return {"true": True, "false": False}.get(self.text(key).strip().lower())

    def number(self, key: str, lowest: int, highest: int) -> int | None:
        """None where it is no number, or none in these bounds."""
        text = self.text(key).strip()
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            return None
        return int(text) if lowest <= int(text) <= highest else None


def parse_vmx(data: bytes) -> Settings:
    """Never raises. Where a key stands there twice the last one counts."""
    read = read_vmx(data)
    return Settings({key.lower(): value for key, value in read.settings}, read.notes)
