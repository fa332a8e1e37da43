"""A .vmx as keys and values in their order, changed, and written for ESXi.

Decides how it is written, and that keys are compared without case, as ESXi does. How one is read is
in `backpoint_repo.vmx_lines`. Knows no key's meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from backpoint_repo.errors import ObjectDamaged
from backpoint_repo.vmx_lines import VMX_SIZE_MAX, read_vmx

_ESCAPED: Final = re.compile(r'[\x00-\x1f\x7f"|#]')


class Vmx:
    """Values by key. A key that is set again keeps its place and the spelling it had first."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values: dict[str, tuple[str, str]] = {}
        for key, value in (values or {}).items():
            self.set(key, value)

    def get(self, key: str, default: str = "") -> str:
        """The value, unescaped."""
        return self._values.get(key.lower(), ("", default))[1]

    def __contains__(self, key: str) -> bool:
        return key.lower() in self._values

    def set(self, key: str, value: str) -> None:
        """Put a value, over the one that is there."""
        spelt = self._values.get(key.lower(), (key, ""))[0]
        self._values[key.lower()] = (spelt, value)

    def drop(self, key: str) -> None:
        """Harmless where there is none."""
        self._values.pop(key.lower(), None)

    def names(self) -> list[str]:
        """In lower case, in their order; a copy, so that keys may be dropped meanwhile."""
        return list(self._values)

    def below(self, prefix: str) -> list[str]:
        """Keys of one device: "ethernet0" has "ethernet0.present", in lower case."""
        start = prefix.lower() + "."
        return [key for key in self._values if key.startswith(start)]

    def is_true(self, key: str) -> bool:
        """Whether the value is TRUE in any case."""
        return self.get(key).strip().lower() == "true"

    def items(self) -> Iterator[tuple[str, str]]:
        """As spelt, in order."""
        yield from self._values.values()


def parse_vmx(data: bytes, what: str) -> Vmx:
    """Of a key given twice the last one counts.

    what: the file and its point, for the message. Raises ObjectDamaged where it is too large to be
    a .vmx, or has not one setting.
    """
    if len(data) > VMX_SIZE_MAX:
        raise ObjectDamaged(f"{what} has {len(data)} bytes, more than any .vmx")
    found = Vmx()
    for key, value in read_vmx(data).settings:
        found.set(key, value)
    if not found.names():
        raise ObjectDamaged(f"{what} is no .vmx: it has no setting")
    return found


def encode_vmx(vmx: Vmx) -> bytes:
    """UTF-8, which it says itself in its first line."""
    lines = ['.encoding = "UTF-8"']
    lines += [
        f'{key} = "{_escape(value)}"' for key, value in vmx.items() if key.lower() != ".encoding"
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _escape(value: str) -> str:
    return _ESCAPED.sub(lambda found: f"|{ord(found[0]):02X}", value)
